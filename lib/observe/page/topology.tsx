/** Nodes on their underlay with pods below, each link with its rate. Nodes can be chosen, by pointer or by keyboard. */
import type { JSX } from 'preact';
import type { LinkRate, NetworkView, NodeView, PodView } from '../microscope/model.ts';
import { bitRate, plural } from './format.ts';

const CARD = { width: 264, height: 112 };
const COLUMN = 300;
const BUS = 34;
const LINK = 58;
const POD = { height: 40, gap: 8 };
const MOST_PODS = 4;

export function Topology({
  network,
  selected,
  select,
}: {
  network: NetworkView;
  selected: string;
  select: (name: string) => void;
}): JSX.Element {
  const { nodes, pods } = network;
  const columns = Math.max(2, Math.min(nodes.length, nodes.length > 8 ? 4 : 3));
  const rows = Math.ceil(nodes.length / columns);
  const mostPods = Math.min(
    MOST_PODS,
    Math.max(0, ...nodes.map(node => pods.filter(pod => pod.node === node.name).length)),
  );
  const more = nodes.some(node => pods.filter(pod => pod.node === node.name).length > MOST_PODS) ? 20 : 0;
  const rowHeight = BUS + LINK + CARD.height + 34 + mostPods * (POD.height + POD.gap) + more + 12;
  const width = columns * COLUMN + 20;
  return (
    <svg
      class="network"
      viewBox={`0 0 ${width} ${rows * rowHeight + 8}`}
      style={{ maxHeight: `${Math.max(420, rows * 330)}px` }}
      aria-label={`${plural(nodes.length, 'node')} on the underlay ${network.underlay}`}
      role="group"
    >
      {Array.from({ length: rows }, (_, row) => (
        <g key={row}>
          <line x1={20} x2={width - 20} y1={row * rowHeight + BUS} y2={row * rowHeight + BUS} class="bus" />
          {row > 0 && <line x1={20} x2={20} y1={(row - 1) * rowHeight + BUS} y2={row * rowHeight + BUS} class="bus" />}
        </g>
      ))}
      <text x={24} y={BUS - 12} class="label soft">
        {titleOf(network)}
      </text>
      {nodes.map((node, i) => (
        <NodeCard
          key={node.name}
          node={node}
          pods={pods.filter(pod => pod.node === node.name)}
          x={20 + (i % columns) * COLUMN}
          y={Math.floor(i / columns) * rowHeight + BUS}
          selected={node.name === selected}
          select={select}
        />
      ))}
    </svg>
  );
}

/** What is known of: a daemon does not know how wide its underlay is. */
function titleOf({ underlay, network, registry }: NetworkView): string {
  const parts = [underlay === '' ? 'underlay' : `underlay ${underlay}`];
  if (network !== '') parts.push(`pod network ${network}`);
  if (registry !== '') parts.push(`registry ${registry}`);
  return parts.join(' · ');
}

interface CardProps {
  node: NodeView;
  pods: readonly PodView[];
  x: number;
  /** Of the bus above it. */
  y: number;
  selected: boolean;
  select: (name: string) => void;
}

function NodeCard({ node, pods, x, y, selected, select }: CardProps): JSX.Element {
  const middle = x + CARD.width / 2;
  const top = y + LINK;
  const bottom = top + CARD.height;
  const drops = Object.values(node.drops).reduce((sum, count) => sum + count, 0);
  const eth0 = node.rates['eth0'];
  const shown = pods.slice(0, MOST_PODS);
  return (
    <g class="node-group">
      <Link x={middle} from={y} to={top} rate={eth0} />
      {eth0 !== undefined && (
        <>
          <text x={middle + 12} y={y + 24} class="label rate">
            ↑ {bitRate(eth0.sentBytes)}
          </text>
          <text x={middle + 12} y={y + 42} class="label rate">
            ↓ {bitRate(eth0.receivedBytes)}
          </text>
        </>
      )}
      <text x={middle - 12} y={y + 34} class="label soft" text-anchor="end">
        {node.address}
      </text>
      <g
        class={`node${selected ? ' selected' : ''}${node.healthy ? '' : ' bad'}`}
        role="button"
        tabindex={0}
        aria-pressed={selected}
        aria-label={`${node.name}, ${node.healthy ? 'healthy' : node.note}, lease ${node.subnet}, ${plural(drops, 'drop')}`}
        onClick={() => select(node.name)}
        onKeyDown={event => {
          if (event.key !== 'Enter' && event.key !== ' ') return;
          event.preventDefault();
          select(node.name);
        }}
      >
        <rect x={x} y={top} width={CARD.width} height={CARD.height} rx={10} class="card" />
        <circle cx={x + 20} cy={top + 22} r={5} class="lamp" />
        <text x={x + 34} y={top + 27} class="label strong">
          {node.name}
        </text>
        {drops > 0 && (
          <text x={x + CARD.width - 14} y={top + 27} class="label bad" text-anchor="end">
            {plural(drops, 'drop')}
          </text>
        )}
        <line x1={x} x2={x + CARD.width} y1={top + 40} y2={top + 40} class="rule" />
        <Row x={x} y={top + 59} name="lease" value={node.subnet} />
        {node.transport !== '' && <Row x={x} y={top + 79} name="tulled" value={node.transport} />}
        {node.device.mtu > 0 && <Row x={x} y={top + 99} name={node.device.name} value={`MTU ${node.device.mtu}`} />}
      </g>
      {shown.map((pod, i) => {
        const podTop = bottom + 26 + i * (POD.height + POD.gap);
        return (
          <g key={pod.name} class="pod">
            <path
              d={`M${x + 18} ${i === 0 ? bottom : podTop - POD.height / 2 - POD.gap} V${podTop + POD.height / 2} H${x + 40}`}
              class={flowClass(pod.rate)}
            />
            <rect x={x + 40} y={podTop} width={CARD.width - 40} height={POD.height} rx={8} class="card" />
            <text x={x + 52} y={podTop + 17} class="label strong">
              {pod.name}
            </text>
            <text x={x + 52} y={podTop + 33} class="label mono">
              {pod.address}
            </text>
            {pod.rate !== undefined && (
              <>
                <text x={x + CARD.width - 12} y={podTop + 17} class="label rate" text-anchor="end">
                  ↑ {bitRate(pod.rate.sentBytes)}
                </text>
                <text x={x + CARD.width - 12} y={podTop + 33} class="label rate" text-anchor="end">
                  ↓ {bitRate(pod.rate.receivedBytes)}
                </text>
              </>
            )}
          </g>
        );
      })}
      {pods.length > shown.length && (
        <text x={x + 52} y={bottom + 40 + shown.length * (POD.height + POD.gap)} class="label soft">
          and {pods.length - shown.length} more
        </text>
      )}
    </g>
  );
}

function Row({ x, y, name, value }: { x: number; y: number; name: string; value: string }): JSX.Element {
  return (
    <>
      <text x={x + 14} y={y} class="label soft">
        {name}
      </text>
      <text x={x + 72} y={y} class="label mono">
        {value}
      </text>
    </>
  );
}

function Link({ x, from, to, rate }: { x: number; from: number; to: number; rate: LinkRate | undefined }): JSX.Element {
  return <line x1={x} x2={x} y1={from} y2={to} class={flowClass(rate)} />;
}

/** Busy links move. */
function flowClass(rate: LinkRate | undefined): string {
  const bytes = (rate?.sentBytes ?? 0) + (rate?.receivedBytes ?? 0);
  if (bytes > 1_000_000) return 'link fast';
  return bytes > 2000 ? 'link busy' : 'link';
}
