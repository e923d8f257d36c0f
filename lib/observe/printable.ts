/** Text for a terminal: node names, addresses and reasons come from other machines. */

/** Everything that could move a cursor or change colours becomes "?"; line ends stay. */
export function printable(text: string): string {
  return text.replace(/[^\P{C}\n]/gu, '?');
}
