/** The help texts of `tulle lab`. */
import { MOST_NODES, MOST_PODS } from './plan.ts';

export const LAB_HELP = `tulle lab: a cluster of network namespaces on this machine, everything real but the wire

usage:
  tulle lab up [options]              bring a lab up, measure it, draw it; Ctrl-C takes it down
  tulle lab down [--name NAME]        take it down from another terminal, or clean up after a killed one
  tulle lab exec NODE|POD -- COMMAND  run a command inside a node or a pod; its exit code is passed on
  tulle lab fault add|list|remove     break the underlay on purpose: delay, loss, a small MTU, NAT, …
  tulle lab ping|tcp FROM TO          measure, without other programs
  tulle lab trace FROM TO             follow one packet from place to place
  tulle lab forge FROM NODE           send forged datagrams, to see them refused
  tulle lab restart [NODE ...]        end daemons and start them again, with other flags; "lab stop" only ends one
  tulle lab status [--name NAME]      show the picture of the running lab again

Every node is a network namespace with a TUN device, a tulled daemon and a subnet lease; the nodes hang on one switch,
the underlay, 10.88.0.0/24. Pods hang on a bridge of their node and have addresses of its lease, from 10.42.0.0/16.
Nothing touches the network of this machine, and everything is gone afterwards.
Needs root, or a user who may make user namespaces and open /dev/net/tun.

"tulle lab up --help" lists the options. In a clone "tulle" is typed as "node dist/cmd/tulle.js", and
"npm run lab --" is "tulle lab up".
`;

export const UP_HELP = `tulle lab up: bring a lab up, measure it, draw it, and keep it until Ctrl-C or "lab down"

usage: tulle lab up [options]

  --nodes N          nodes, 2 to ${MOST_NODES} (default 2)
  --pods N           pods on each node, 1 to ${MOST_PODS} (default 1)
  --registry KIND    where the leases live: file, a directory (default); etcd, a real server in the lab; or kube,
                     the nodes of a small Kubernetes API server in the lab
  --transport KIND   how datagrams move: offload (trains and kernel offloads, default), batch (batched system calls),
                     dgram (one packet at a time)
  --seconds N        length of each throughput measurement, 1 to 60 (default 3)
  --compare          measure TCP with the other transports, too: what each technique buys
  --once             measure, then take the lab down at once
  --json             no picture: one JSON object as the last line of stdout
  --no-page          without the live page, whose address is printed when the lab stands
  --page-port N      the page's port on 127.0.0.1 (default 8286, or a free one when that is taken)
  --name NAME        run beside another lab (default "lab")
  --help             this text

examples:
  tulle lab up                                    two nodes, a pod on each
  tulle lab up --nodes 3 --pods 2                 six pods on three nodes
  tulle lab up --once --json | tail -n 1          figures for a program
  tulle lab up --compare --once                   all transports side by side
  tulle lab up --page-port 9000                   the live page at another port: open what is printed
  tulle lab up --no-page                          a lab for the terminal alone
  tulle lab up --registry etcd --name second      another one, with etcd, at the same time
`;

export const DOWN_HELP = `tulle lab down: end a running lab, or remove what a killed one left behind

usage: tulle lab down [--name NAME]

  --name NAME        which lab (default "lab")
`;

export const EXEC_HELP = `tulle lab exec: run a command inside a node or a pod of a running lab

usage: tulle lab exec [--name NAME] NODE|POD -- COMMAND [ARGUMENT ...]

  --name NAME        which lab (default "lab")

examples:
  tulle lab exec pod1 -- bash                     a shell in the first pod
  tulle lab exec node1 -- cat /proc/net/dev       the links of a node and their counters
  tulle lab exec switch -- tcpdump -ni br0 udp    the datagrams between the nodes, where tcpdump is installed
`;

export const STATUS_HELP = `tulle lab status: show the picture of the running lab; exit code 1 when there is none

usage: tulle lab status [--name NAME] [--json]
`;
