/** JSON lines out of a stream of chunks. A line that is no object is skipped, one that is too long is left out. */
const LONGEST_LINE = 1024 * 1024;

export async function* jsonLines(stream: AsyncIterable<Uint8Array>): AsyncGenerator<object> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LONGEST_LINE) rest = '';
    for (const line of lines) {
      const value = parse(line);
      if (value !== undefined) yield value;
    }
  }
}

function parse(line: string): object | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
