import t from 'tap';
import { parseIperf } from '../../../bench/load/iperf.ts';

/** As iperf3 3.12 prints it, what is not read left out. */
const cpu = { host_total: 50, remote_total: 25 };
const interval = (start: number, bytes: number) => ({ sum: { start, end: start + 0.1, seconds: 0.1, bytes } });

t.test('TCP: what the server received, without the first moments', async t => {
  const intervals = Array.from({ length: 10 }, (_, i) => interval(i / 10, i < 3 ? 1e6 : 12.5e6));
  const report = {
    end: {
      sum_sent: { seconds: 1, bytes: 200e6, retransmits: 7 },
      sum_received: { seconds: 1, bytes: 90.5e6 },
      cpu_utilization_percent: cpu,
    },
  };
  const whole = parseIperf(JSON.stringify({ ...report, server_output_json: { intervals } }), false);
  t.equal(whole.gbps.toFixed(6), '1.000000', 'of the intervals after 0.3 s');
  t.equal(whole.gigabits.toFixed(6), '0.724000', 'of all of it');
  t.equal(whole.retransmits, 7);
  t.equal(whole.cpuSeconds, 0.75);
  const few = parseIperf(
    JSON.stringify({ ...report, server_output_json: { intervals: intervals.slice(0, 5) } }),
    false,
  );
  t.equal(few.gbps.toFixed(6), '0.724000', 'too few intervals: the whole');
  t.equal(parseIperf(JSON.stringify(report), false).gbps.toFixed(6), '0.724000', 'no report of the server');
});

t.test('UDP: what came last is lost, too', async t => {
  const report = {
    end: {
      sum_sent: { seconds: 2, bytes: 64_000, packets: 1000 },
      // The last 100 never came, so the server knows of 900, of which it saw 850.
      sum_received: { seconds: 2, bytes: 54_400, packets: 900, lost_packets: 50 },
      cpu_utilization_percent: cpu,
    },
  };
  t.match(parseIperf(JSON.stringify(report), true), { sentPackets: 1000, receivedPackets: 850, seconds: 2 });
  // Versions before 3.7 have one sum only.
  const old = { end: { sum: { seconds: 2, bytes: 64_000, packets: 1000, lost_packets: 50 } } };
  t.match(parseIperf(JSON.stringify(old), true), { sentPackets: 1000, receivedPackets: 950 });
});

t.test('what is no report', async t => {
  t.throws(() => parseIperf('', false), { code: 'load', message: /printed no report/ });
  t.throws(() => parseIperf('{"error":"unable to connect"}', false), { message: 'iperf3: unable to connect' });
  t.throws(() => parseIperf('{"start":{},"end":{}}', false), { message: 'iperf3 reports no time' });
});
