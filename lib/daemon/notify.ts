/**
 * What the daemon tells its service manager, by the protocol of sd_notify(3): datagrams of "KEY=value" lines to the
 * socket that $NOTIFY_SOCKET names. Without that variable nothing is sent. A manager that does not listen is no reason
 * to stop: the first failure is logged, the rest are not.
 *
 *   waiting for the network configuration …      STATUS=waiting for …
 *   ready                                        READY=1
 *   the network configuration changed            RELOADING=1 with the moment, and READY=1 once it is in force
 *   stopping                                     STOPPING=1
 *   all the time, twice in $WATCHDOG_USEC        WATCHDOG=1: the event loop turns
 */
import { sendUnixDatagram } from '../sys/sys.ts';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { Health } from './health.ts';

export interface Notifier {
  waiting(what: string): void;
  ready(): void;
  reloading(): void;
  stopping(): void;
  /** Stops the watchdog's datagrams. */
  close(): void;
}

export const SILENT: Notifier = { waiting() {}, ready() {}, reloading() {}, stopping() {}, close() {} };

export interface NotifierOptions {
  environment: Record<string, string | undefined>;
  log: Logger;
  /** Default: a datagram. It throws when it cannot be sent. */
  send?: (socket: string, text: string) => void;
  pid?: number;
}

/** The real one, or one that is silent where no manager asks for anything. */
export function openNotifier({ environment, log, ...rest }: NotifierOptions): Notifier {
  const { send = sendUnixDatagram, pid = process.pid } = rest;
  const socket = environment['NOTIFY_SOCKET'];
  if (socket === undefined || socket === '') return SILENT;
  let complained = false;
  const tell = (...lines: readonly string[]): void => {
    try {
      send(socket, `${lines.join('\n')}\n`);
    } catch (error) {
      if (!complained) log.warn({ socket, reason: messageOf(error) }, 'the service manager cannot be told how we are');
      complained = true;
    }
  };
  const periodMs = watchdogMs(environment, pid);
  const timer = periodMs === undefined ? undefined : setInterval(() => tell('WATCHDOG=1'), periodMs);
  timer?.unref();
  let isStopping = false;
  return {
    waiting: what => tell(`STATUS=waiting for ${oneLine(what)}`),
    ready: () => tell('READY=1', 'STATUS=ready'),
    // systemd wants the moment, CLOCK_MONOTONIC in microseconds, to tell this reload from one that it asked for later.
    reloading: () =>
      tell('RELOADING=1', `MONOTONIC_USEC=${monotonicUsec()}`, 'STATUS=following the network configuration'),
    stopping: () => {
      if (!isStopping) tell('STOPPING=1', 'STATUS=stopping');
      isStopping = true;
    },
    close: () => clearInterval(timer),
  };
}

/** Half of what the manager allows between two signs, in milliseconds; undefined where it expects none from us. */
function watchdogMs(environment: Record<string, string | undefined>, pid: number): number | undefined {
  const [text = '', owner = ''] = [environment['WATCHDOG_USEC'], environment['WATCHDOG_PID']];
  if (!/^[1-9]\d{0,15}$/.test(text) || (owner !== '' && owner !== String(pid))) return undefined;
  // setInterval takes 31 bits; a manager that waits for weeks is content with a sign a day.
  return Math.max(1, Math.min(Math.floor(Number(text) / 2000), 86_400_000));
}

const monotonicUsec = (): bigint => process.hrtime.bigint() / 1000n;

const oneLine = (text: string): string => text.replace(/\s+/g, ' ');

/** Readiness in both places: at the health endpoint, where there is one, and with the service manager. */
export function announce(health: Health | undefined, notifier: Notifier): Health {
  return {
    port: health?.port ?? 0,
    setReady(ready: boolean, what?: string) {
      if (ready) health?.setReady(true);
      else health?.setReady(false, what ?? 'the daemon');
      if (ready) notifier.ready();
      else notifier.waiting(what ?? 'the daemon');
    },
    close: async () => health?.close(),
  };
}
