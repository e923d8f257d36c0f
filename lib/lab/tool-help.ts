/** The help texts of the lab's measuring tools: `tulle lab ping | tcp | forge | trace | restart | stop`. */
import { DEFAULT_SIZE, DEFAULT_TTL } from '../observe/trace/packet.ts';

export const PING_HELP = `tulle lab ping: echoes from one place of the lab to another, without ping(8)

usage: tulle lab ping FROM TO [options]

  FROM, TO           nodes, pods, or the switch
                       tulle lab ping pod1 pod2
  --count N          echoes, 1 to 10000 (default 5)
                       tulle lab ping node1 node2 --count 200
  --bytes N          length of the IP packet, 28 to 65000 (default 84)
                       tulle lab ping node1 node2 --bytes 1400
  --interval N       milliseconds between two echoes (default 20)
                       tulle lab ping node1 node2 --interval 1
  --name LAB         which lab (default "lab")
                       tulle lab ping pod1 pod2 --name lesson-3
  --json             one JSON object
                       tulle lab ping pod1 pod2 --json
  --help             this text
                       tulle lab ping --help

Exit code 1 when no echo came back.
`;

export const TCP_HELP = `tulle lab tcp: one TCP stream from one place of the lab to another, and what it cost the daemons

usage: tulle lab tcp FROM TO [options]

  FROM, TO           nodes or pods
                       tulle lab tcp pod1 pod2
  --seconds N        how long, 1 to 60 (default 2)
                       tulle lab tcp pod1 pod2 --seconds 5
  --name LAB         which lab (default "lab")
                       tulle lab tcp pod1 pod2 --name lesson-1
  --json             one JSON object
                       tulle lab tcp pod1 pod2 --json
  --help             this text
                       tulle lab tcp --help

Exit code 1 when the stream hangs.
`;

export const FORGE_HELP = `tulle lab forge: send forged datagrams to a node of the lab, to see which of them are refused, and why

usage: tulle lab forge FROM NODE [options]

  FROM               where they leave: the switch, or a node
                       tulle lab forge switch node2
  NODE               the node that shall take them
                       tulle lab forge switch node1
  --as NODE          with that node's address and port as their source (default: FROM's own address)
                       tulle lab forge switch node2 --as node1
  --key KEY          the lease key they claim: a number, 0x and hexadecimal digits, or "right", the true one of --as
                       tulle lab forge switch node2 --as node1 --key right
  --source A         address inside, that of a pod (default: the first pod of --as, or of the network)
                       tulle lab forge switch node2 --as node1 --key right --source 10.42.200.7
  --count N          so many, 1 to 10000 (default 10)
                       tulle lab forge switch node2 --count 100
  --name LAB         which lab (default "lab")
                       tulle lab forge switch node2 --name lesson-5
  --help             this text
                       tulle lab forge --help

It prints by how much each of the node's drop counters rose.
`;

export const TRACE_HELP = `tulle lab trace: follow one packet from a pod of the lab to another place of it, as "tulle trace" does

usage: tulle lab trace FROM TO [options]

  FROM               a pod, whose node sends the packet
                       tulle lab trace pod1 pod2
  TO                 a pod, or any IPv4 address
                       tulle lab trace pod1 10.42.77.1
  --proto NAME       icmp (default), tcp or udp
                       tulle lab trace pod1 pod2 --proto tcp
  --port N           the destination port of tcp and udp
                       tulle lab trace pod1 pod2 --proto tcp --port 80
  --size N           bytes of the whole packet, IP header included (default ${DEFAULT_SIZE})
                       tulle lab trace pod1 pod2 --size 1450
  --ttl N            its TTL (default ${DEFAULT_TTL})
                       tulle lab trace pod1 pod2 --ttl 1
  --explain          send nothing: say what would happen
                       tulle lab trace pod1 pod2 --explain
  --name LAB         which lab (default "lab")
                       tulle lab trace pod1 pod2 --name lesson-3
  --json             one JSON object
                       tulle lab trace pod1 pod2 --json
  --help             this text
                       tulle lab trace --help

Exit code 0 delivered, 1 stopped, 2 nobody can tell.
`;

export const RESTART_HELP = `tulle lab restart: end the daemons of a running lab and start them again, with other flags if you like

usage: tulle lab restart [NODE ...] [options] [-- FLAG ...]

  NODE               which nodes (default: all)
                       tulle lab restart node2
  --transport KIND   offload, batch or dgram
                       tulle lab restart --transport batch
  -- FLAG ...        flags of tulled, each as --name=value; those of the same name are replaced
                       tulle lab restart node1 -- --lease-ttl=15s --subnet-lease-renew-margin=0
  --name LAB         which lab (default "lab")
                       tulle lab restart --name lesson-2
  --help             this text
                       tulle lab restart --help

Leases and pods stay.
`;

export const STOP_HELP = `tulle lab stop: end the daemon of one node of a running lab; "lab restart" starts it again

usage: tulle lab stop NODE [--name LAB]

  NODE               which node
                       tulle lab stop node2
  --name LAB         which lab (default "lab")
                       tulle lab stop node2 --name lesson-4
  --help             this text
                       tulle lab stop --help
`;
