// Thousands of changes at once must not become thousands of batches: a reader applies each to the whole list.
import { EventEmitter } from 'node:events';
import t from 'tap';
import type { EtcdClient, KeyValue, WatchResponse, WatchStream } from '../../etcd/client.ts';
import { type WatchBatch, watchRange } from '../../etcd/watch.ts';

const range = { key: Buffer.from('a'), range_end: Buffer.from('b') };

/** The stream of a watch, without an etcd behind it. */
function fakeStream() {
  const stream = Object.assign(new EventEmitter(), { write: () => true, end: () => {}, cancel: () => {} });
  const client = {
    endpoints: 'nowhere',
    openWatch: async () => ({
      stream: stream as unknown as WatchStream,
      abandoned: new AbortController().signal,
      giveUp: () => {},
    }),
  } as unknown as EtcdClient;
  const put = (revision: number): void => {
    const kv = { key: Buffer.from(`a${revision}`), value: Buffer.from(''), mod_revision: `${revision}` };
    const answer = { created: false, canceled: false, compact_revision: '0', events: [{ type: 'Put', kv }] };
    const header = { cluster_id: '1', revision: `${revision}` };
    stream.emit('data', { ...answer, header } as unknown as WatchResponse);
  };
  return { client, put };
}

for (const how of ['in one turn', 'while the reader is busy'] as const) {
  t.test(`1000 changes ${how}: a handful of batches, nothing lost, in order`, async t => {
    const { client, put } = fakeStream();
    const stopper = new AbortController();
    const batches: WatchBatch[] = [];
    let turns = 0;
    let sent = 0;
    const send = (count: number): void => {
      for (let i = 0; i < count; i++) put(++sent);
    };
    const counting = setInterval(() => turns++, 0);
    setImmediate(() => send(how === 'in one turn' ? 1000 : 1));
    for await (const batch of watchRange(client, { range, from: 1, clusterId: '1', signal: stopper.signal })) {
      batches.push(batch);
      // What came meanwhile is read when the process is free again, one answer a turn of the microtasks.
      if (sent < 1000) queueMicrotask(() => send(333));
      const until = performance.now() + 5;
      while (performance.now() < until);
      if (batch.revision === 1000) stopper.abort();
    }
    clearInterval(counting);
    t.ok(batches.length <= 5, `${batches.length} batches`);
    const seen = batches.flatMap(({ events }) => events.map(({ kv }: { kv: KeyValue }) => Number(kv.mod_revision)));
    t.same(
      seen,
      Array.from({ length: 1000 }, (_, i) => i + 1),
    );
    t.same(
      batches.map(({ events, revision }) => Number(events.at(-1)?.kv.mod_revision) === revision),
      batches.map(() => true),
    );
    if (how !== 'in one turn') t.ok(turns >= 2, `timers ran ${turns} times in between`);
  });
}
