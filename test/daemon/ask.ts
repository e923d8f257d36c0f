// Asking a daemon under test through its control socket, again and again until it says what is waited for.
import { askControl } from '../../lib/observe/control-client.ts';
import type { StatusDocument } from '../../lib/observe/status.ts';

const DEADLINE_MS = 60_000;

/** The status document as soon as it fulfils the condition; it throws with the last one after a minute. */
export async function statusWhen(
  socket: string,
  condition: (status: StatusDocument) => boolean,
): Promise<StatusDocument> {
  const deadline = performance.now() + DEADLINE_MS;
  let last: unknown;
  while (performance.now() < deadline) {
    try {
      const status = (await askControl(socket, { path: '/status' })) as StatusDocument;
      if (condition(status)) return status;
      last = status;
    } catch (error) {
      last = error;
    }
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  throw new Error(
    `a minute passed; the last answer was ${last instanceof Error ? last.message : JSON.stringify(last)}`,
  );
}
