/** A run that never took place, for the tests of what is made of one. */
import type { Row, Run } from '../../bench/results.ts';

export function sampleRows(): Row[] {
  return [
    { tunnel: 'veth', kind: 'kernel', underlay: 'veth', values: { tcp1Gbps: [30, 36, 30], rttMs: [0.01, 0.01, 0.01] } },
    {
      tunnel: 'vxlan',
      kind: 'kernel',
      underlay: 'veth',
      values: { tcp1Gbps: [20, 24, 20], udp64Kpps: [140, 150, 145], cpuPerGb: [0.05, 0.05, 0.06] },
    },
    {
      tunnel: 'tulle',
      kind: 'user',
      underlay: 'veth',
      values: {
        tcp1Gbps: [10, 12, 9],
        tcp4Gbps: [null, null, null],
        rttMs: [0.1, 0.11, 0.1],
        rttP90Ms: [0.2, 0.2, 0.2],
        rttP99Ms: [0.5, 0.6, 0.4],
        udp64Kpps: [136, 130, 140],
        udp64CarriedLossPct: [2, 30, 4],
        cpuPerGb: [0.1, 0.1, 0.1],
        rssMb: [80, 90, 85],
      },
    },
    { tunnel: 'tulle-batch', kind: 'user', underlay: 'veth', values: { tcp1Gbps: [1.5, 1.6, 1.5] } },
    {
      tunnel: 'fastd <raw> & "co"',
      kind: 'user',
      underlay: 'veth',
      values: { tcp1Gbps: [1, 1, null], cpuPerGb: [0.9, 0.8, 0.9] },
    },
  ];
}

export function sampleRun(): Run {
  return {
    machine: {
      cpu: 'Test <CPU>',
      cores: 2,
      kernel: '6.18.0',
      node: '20.0.0',
      tcp: 'cubic',
      date: '2026-11-21T03:00:00.000Z',
      load: 0.1,
      busy: 0.02,
    },
    commit: { commit: '0123456789ab', dirty: false },
    quick: false,
    whole: true,
    rounds: 3,
    seconds: 3,
    rows: sampleRows(),
  };
}
