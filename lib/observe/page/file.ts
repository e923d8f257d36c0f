/** A capture file that somebody dropped here: read in the browser, never sent anywhere. */
import { messageOf } from '../../util/errors.ts';
import { recordsOfCapture } from '../microscope/capture-file.ts';
import { plural } from './format.ts';
import { disconnect } from './live.ts';
import { say, showFile } from './store.ts';

/** Larger ones are cut by their writer; a browser holds this easily. */
const LARGEST = 256 * 1024 * 1024;

export async function openCapture(file: File): Promise<void> {
  try {
    if (file.size > LARGEST) throw new Error(`it is larger than ${LARGEST / 1024 / 1024} MB: cut it first`);
    const records = recordsOfCapture(new Uint8Array(await file.arrayBuffer()));
    disconnect();
    showFile(file.name, records);
    say(
      records.length === 0
        ? `${file.name} holds no packet of an overlay`
        : `${file.name}: ${plural(records.length, 'packet')}, read here in the browser`,
    );
  } catch (error) {
    say(`${file.name} cannot be opened: ${messageOf(error)}`, true);
  }
}
