/** Steps on stderr as they happen: what is being done, and then the time that it took. */
export interface Progress {
  /** Runs one step under its name. */
  step<T>(what: string, action: () => T | Promise<T>): Promise<T>;
  note(text: string): void;
}

const NAME_COLUMNS = 62;

export function openProgress(
  out: { write(text: string): unknown },
  now: () => number = () => performance.now(),
): Progress {
  /** The step whose line has no end yet; a step that was left alone finishes in silence. */
  let open: object | undefined;
  const endLine = (text: string): void => {
    out.write(`${text}\n`);
    open = undefined;
  };
  return {
    note(text) {
      if (open !== undefined) endLine('');
      endLine(text);
    },
    async step(what, action) {
      if (open !== undefined) endLine('');
      const self = {};
      open = self;
      out.write(`  ${`${what} `.padEnd(NAME_COLUMNS, '.')}`);
      const start = now();
      try {
        const result = await action();
        if (open === self) endLine(`${((now() - start) / 1000).toFixed(2).padStart(7)} s`);
        return result;
      } catch (error) {
        if (open === self) endLine('  failed');
        throw error;
      }
    },
  };
}
