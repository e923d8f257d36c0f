/** Numbers as people read them. */
const UNITS = ['', 'k', 'M', 'G', 'T'];

/** Bits per second from bytes per second: "0", "12 kb/s", "6.67 Gb/s". */
export function bitRate(bytesPerSecond: number): string {
  return `${scaled(bytesPerSecond * 8)}b/s`;
}

/** "1.25 M". */
export function scaled(value: number): string {
  let unit = 0;
  let scaledValue = value;
  while (scaledValue >= 1000 && unit < UNITS.length - 1) {
    scaledValue /= 1000;
    unit++;
  }
  const digits = scaledValue === 0 || scaledValue >= 100 ? 0 : scaledValue >= 10 ? 1 : 2;
  return `${scaledValue.toFixed(unit === 0 ? 0 : digits)} ${UNITS[unit]}`;
}

export function clock(ms: number): string {
  return new Date(ms).toISOString().slice(11, 19);
}

export function plural(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? '' : 's'}`;
}

/** How long until then: "23 h", "4 min", "12 s", "over". */
export function until(ms: number, now: number): string {
  const seconds = Math.round((ms - now) / 1000);
  if (seconds <= 0) return 'over';
  if (seconds >= 5400) return `${Math.round(seconds / 3600)} h`;
  return seconds >= 90 ? `${Math.round(seconds / 60)} min` : `${seconds} s`;
}
