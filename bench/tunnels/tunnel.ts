/** What a tunnel is to the bench. */
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import type { Found } from '../programs.ts';
import { POD_MTU, type Program, peerOf, type Stage, type StageNode, startOn, stopPrograms, until } from '../stage.ts';

export interface Tunnel {
  /** As in --only, the table and the JSON lines. */
  readonly name: string;
  /** Whose CPU time it takes: the kernel's, or that of its own processes. */
  readonly kind: 'kernel' | 'user';
  /** One line for the documentation and --help. */
  readonly about: string;
  /** The Debian package that it needs, and its program. */
  readonly needs?: { readonly package: string; readonly program: string };
  /** Makes it, as far as it can do so at once; undone by `down` even when it throws half-way. */
  up(stage: Stage, made: Made): Promise<void>;
  /** Removes what it leaves outside of the stage, when its programs have ended. */
  clean?(): void;
}

/** What a tunnel has made so far. */
export interface Made {
  readonly programs: Program[];
  /** Of `needs`. */
  readonly found: Found | undefined;
}

/** Ends the programs; the links that they leave are swept by the stage. */
export async function down(stage: Stage, made: Made): Promise<void> {
  await stopPrograms(stage, made.programs.splice(0));
}

/** Starts the tunnel's own program on a node. */
export function startProgramOf(
  stage: Stage,
  made: Made,
  node: StageNode,
  name: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Program {
  const { path, environment: libraries } = made.found!;
  const program = startOn(stage, node, [path, ...args], { name, environment: { ...libraries, ...environment } });
  made.programs.push(program);
  return program;
}

/** Waits for the device that a program makes, and sends the other node's pods through it. */
export async function plugDevice(
  stage: Stage,
  made: Made,
  node: StageNode,
  device: string,
  options: { address?: string; mtu?: number } = {},
): Promise<void> {
  const file = node.namespaceFile;
  await until(`${device} appears`, made.programs, () => withRtnetlink(file, netlink => netlink.link(device)));
  withRtnetlink(file, netlink => {
    netlink.setLink(device, { mtu: options.mtu ?? POD_MTU });
    if (options.address !== undefined) netlink.addAddress(device, options.address);
    netlink.setLink(device, { up: true });
    netlink.addRoute({ destination: peerOf(stage, node).subnet, link: device, replace: true });
  });
}
