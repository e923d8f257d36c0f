/** A capture file that somebody dropped here: read in the browser, never sent anywhere. */
import { messageOf } from '../../util/errors.ts';
import { recordsOfCapture } from '../microscope/capture-file.ts';
import { plural } from './format.ts';
import { disconnect } from './live.ts';
import { say, showFile } from './store.ts';

/** Larger ones are cut by their writer; a browser holds this easily. */
const LARGEST = 256 * 1024 * 1024;
/** More packets than anybody looks at one by one, and what a browser draws without a pause. */
const MOST_RECORDS = 20_000;

/** Captures of several nodes become one: a packet is followed from one into the other. */
export async function openCaptures(files: readonly File[]): Promise<void> {
  const name = files.map(file => file.name).join(', ');
  try {
    if (files.reduce((sum, file) => sum + file.size, 0) > LARGEST)
      throw new Error(`more than ${LARGEST / 1024 / 1024} MB: cut it first`);
    const all = (
      await Promise.all(files.map(async file => recordsOfCapture(new Uint8Array(await file.arrayBuffer()))))
    ).flat();
    // Of several files the same time of each.
    const records = all.length <= MOST_RECORDS ? all : all.sort((a, b) => a.atUs - b.atUs).slice(0, MOST_RECORDS);
    disconnect();
    showFile(name, records);
    if (records.length === 0) return say(`${name} holds no packet of an overlay`);
    if (records.length === all.length)
      return say(`${name}: ${plural(records.length, 'packet')}, read here in the browser`);
    const shown = `the first ${MOST_RECORDS} of ${all.length} packets`;
    say(`${name}: ${shown}; for the others capture less, with "tulle capture --inner" or --count`, true);
  } catch (error) {
    say(`${name} cannot be opened: ${messageOf(error)}`, true);
  }
}
