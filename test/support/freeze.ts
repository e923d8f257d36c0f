/** Stops a process for real: SIGSTOP is only a request, and on a busy machine its threads go on for some milliseconds. */
import { readdirSync, readFileSync } from 'node:fs';

const DEADLINE_MS = 20_000;

/** Resolves once no thread of the process can do anything before SIGCONT. */
export async function freeze(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  const deadline = performance.now() + DEADLINE_MS;
  while (!isStopped(pid)) {
    if (performance.now() > deadline) throw new Error(`process ${pid} does not stop`);
    await new Promise(resolve => setTimeout(resolve, 1));
  }
}

/** Whether all threads are in state T (proc(5)); the state is behind the name, which may hold anything. */
function isStopped(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every(task => {
    const stat = readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T');
  });
}
