/** The help texts of `tulle lab fault`. */

export const FAULT_HELP = `tulle lab fault: break the underlay of a running lab, on purpose, and mend it again

usage:
  tulle lab fault add KIND [NODE|NODE-NODE|NODE-registry] [options]
  tulle lab fault list [--json]
  tulle lab fault remove ID|--all

Where: "node1" is all that node1 sends and receives, "node1-node2" what the two say to each other, "node1-registry" what
node1 and the registry say. With nothing, it is between every pair of nodes. Faults add up; "lab down" ends them all.

kinds:
  delay --ms N            every frame comes N ms later, each way (a round trip takes 2 N more)
  loss --percent P        P of a hundred frames are lost
  reorder --percent P     P of a hundred frames are held back, and others overtake them
  duplicate --percent P   P of a hundred frames come twice
  mtu --bytes N           IP packets longer than N bytes do not pass
  partition               nothing passes
  nat NODE[-NODE]         the node's packets come from another address

"tulle lab fault add --help" lists the options. docs/faults.md tells how it is done and what it costs.
`;

export const FAULT_ADD_HELP = `tulle lab fault add: a new fault; prints its id and what it does

usage: tulle lab fault add KIND [NODE|NODE-NODE|NODE-registry] [options]

  --ms N             delay: milliseconds for each frame; reorder: how long a frame is held back (default 5)
                       tulle lab fault add delay node1-node2 --ms 40
  --jitter N         delay: up to N ms more or less, never out of order
                       tulle lab fault add delay node1-node2 --ms 40 --jitter 10
  --percent P        loss, duplicate, reorder: so many of a hundred frames, 0.01 to 100
                       tulle lab fault add loss node1 --percent 2.5
  --bytes N          mtu: the longest IP packet that passes, 576 to 1500
                       tulle lab fault add mtu node1-node2 --bytes 1400
  --mode MODE        mtu: silent, a black hole (default); icmp, as a router that tells the sender or cuts fragments;
                     link, the node's own interface has that MTU
                       tulle lab fault add mtu node1 --bytes 1400 --mode link
  --address A        nat: the address that the packets come from (default: a free one of the underlay)
                       tulle lab fault add nat node1-node2 --address 10.88.0.200
  --direction D      both (default), out or in, seen from the place named first
                       tulle lab fault add loss node1-node2 --percent 50 --direction out
  --seed N           of the pseudo-random choices, to see the same frames lost again
                       tulle lab fault add loss node1-node2 --percent 5 --seed 7
  --name LAB         which lab (default "lab")
                       tulle lab fault add partition node1-node2 --name second
  --json             print the fault as JSON
                       tulle lab fault add partition node1-registry --json
  --help             this text
                       tulle lab fault add --help
`;

export const FAULT_LIST_HELP = `tulle lab fault list: the faults of a running lab, and how many frames each has touched

usage: tulle lab fault list [--json] [--name LAB]

  --json             one JSON array
                       tulle lab fault list --json
  --name LAB         which lab (default "lab")
                       tulle lab fault list --name second
  --help             this text
                       tulle lab fault list --help
`;

export const FAULT_REMOVE_HELP = `tulle lab fault remove: take a fault away; the link is then as it was

usage: tulle lab fault remove ID|--all [--name LAB]

  ID                 as "add" and "list" show it
                       tulle lab fault remove delay1
  --all              every fault of the lab
                       tulle lab fault remove --all
  --name LAB         which lab (default "lab")
                       tulle lab fault remove delay1 --name second
  --help             this text
                       tulle lab fault remove --help
`;
