/** A capture file that somebody dropped here: read in the browser, never sent anywhere. */
import { messageOf } from '../../util/errors.ts';
import { recordsOfCapture } from '../microscope/capture-file.ts';
import { plural } from './format.ts';
import { disconnect } from './live.ts';
import { say, showFile } from './store.ts';

/** Larger ones are cut by their writer; a browser holds this easily. */
const LARGEST = 256 * 1024 * 1024;

/** Captures of several nodes become one: a packet is followed from one into the other. */
export async function openCaptures(files: readonly File[]): Promise<void> {
  const name = files.map(file => file.name).join(', ');
  try {
    if (files.reduce((sum, file) => sum + file.size, 0) > LARGEST)
      throw new Error(`more than ${LARGEST / 1024 / 1024} MB: cut it first`);
    const records = (
      await Promise.all(files.map(async file => recordsOfCapture(new Uint8Array(await file.arrayBuffer()))))
    ).flat();
    disconnect();
    showFile(name, records);
    say(
      records.length === 0
        ? `${name} holds no packet of an overlay`
        : `${name}: ${plural(records.length, 'packet')}, read here in the browser`,
    );
  } catch (error) {
    say(`${name} cannot be opened: ${messageOf(error)}`, true);
  }
}
