/** The network as it is now: topology with rates, what is dropped and why, the faults that were made. */
import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import type { NodeView, PeerView } from '../microscope/model.ts';
import { dropSentence } from '../microscope/steps.ts';
import { Faults } from './faults.tsx';
import { bitRate, clock, until } from './format.ts';
import { LineChart } from './line-chart.tsx';
import type { State } from './store.ts';
import { Topology } from './topology.tsx';

export function NetworkPanel({ state }: { state: State }): JSX.Element {
  const [selected, setSelected] = useState('');
  const { network } = state;
  if (network === undefined) {
    return (
      <section class="empty">
        <h2>No network here</h2>
        <p>
          A capture file knows packets, not nodes. Start a lab, or open the page of a daemon, to see its network live.
        </p>
      </section>
    );
  }
  const node = network.nodes.find(({ name }) => name === selected) ?? network.nodes[0];
  return (
    <div class="network-view">
      <section class="topology" aria-label="Topology">
        <Topology network={network} selected={node?.name ?? ''} select={setSelected} />
        {state.rates.length > 1 && <RateChart state={state} />}
      </section>
      <aside aria-label="Details">
        {node !== undefined && (
          <NodeDetails node={node} peers={network.peers.filter(peer => peer.node === node.name)} />
        )}
        {state.hello.actions.includes('fault') && <Faults state={state} />}
        <Drops state={state} />
      </aside>
    </div>
  );
}

function NodeDetails({ node, peers }: { node: NodeView; peers: readonly PeerView[] }): JSX.Element {
  const lease = node.leaseEndsAtMs === null ? '' : `, ends in ${until(node.leaseEndsAtMs, Date.now())}`;
  const rows: readonly (readonly [string, string])[] = [
    ['endpoint', `${node.address}, port ${node.port}`],
    ['lease', `${node.subnet}, key ${node.leaseKey}${lease}`],
    ['device', deviceOf(node)],
    ['transport', node.transport],
  ];
  return (
    <section class="card node-details">
      <h2>
        {node.name}{' '}
        <span class={node.healthy ? 'state good' : 'state bad'}>{node.healthy ? 'healthy' : 'in trouble'}</span>
      </h2>
      {node.note !== '' && !node.healthy && <p class="bad-text">{node.note}</p>}
      <dl>
        {rows
          .filter(([, value]) => value !== '')
          .map(([label, value]) => (
            <div key={label}>
              <dt>{label}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
      {peers.length > 0 && (
        <table>
          <thead>
            <tr>
              <th>peer</th>
              <th>round trip</th>
              <th>loss</th>
              <th>path MTU</th>
            </tr>
          </thead>
          <tbody>
            {peers.map(peer => (
              <tr key={peer.endpoint} class={peer.silent ? 'bad-text' : ''}>
                <td>{peer.peer}</td>
                <td>{peer.silent ? 'silent' : peer.rttMs === null ? '–' : `${peer.rttMs.toFixed(2)} ms`}</td>
                <td>{peer.lossPct === null ? '–' : `${peer.lossPct.toFixed(0)} %`}</td>
                <td>{peer.pathMtu ?? '–'}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function deviceOf({ device, underlayMtu }: NodeView): string {
  if (device.mtu === 0) return '';
  return `${device.name}, MTU ${device.mtu}${underlayMtu > 0 ? ` of ${underlayMtu}` : ''}`;
}

function Drops({ state }: { state: State }): JSX.Element {
  const { drops } = state;
  return (
    <section class="card drops" aria-label="Drops">
      <h2>
        Drops <span class="soft">{drops.length === 0 ? 'none yet' : 'as they happen'}</span>
      </h2>
      {drops.length === 0 && <p class="soft">When a packet is discarded, the reason appears here.</p>}
      <ol>
        {drops.slice(0, 40).map(({ atMs, node, reason, count, packet }, i) => (
          <li key={`${atMs} ${node} ${reason} ${i}`}>
            <span class="when">{clock(atMs)}</span>
            <span class="who">{node}</span>
            <strong>
              {reason}
              {count > 1 && ` × ${count}`}
            </strong>
            <span class="sentence">{dropSentence(reason)}</span>
            {packet !== undefined && <code>{packet}</code>}
          </li>
        ))}
      </ol>
    </section>
  );
}

function RateChart({ state }: { state: State }): JSX.Element {
  const { rates, network } = state;
  const counted = network?.nodes.filter(node => node.rates['eth0'] !== undefined) ?? [];
  const names = counted.map(({ name }) => name).slice(0, 6);
  return (
    <figure class="rate-chart">
      <figcaption>Sent into the underlay, each node, the last two minutes</figcaption>
      <LineChart
        label="Bits per second that each node sends into the underlay"
        names={names}
        xs={rates.map(({ atMs }) => atMs / 1000)}
        lines={names.map(name => rates.map(({ sent }) => sent[name] ?? 0))}
        time
        span={120}
        format={value => bitRate(value)}
        height={150}
      />
    </figure>
  );
}
