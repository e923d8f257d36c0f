/**
 * Bytes and fields side by side, tied together: what is pointed at in one is lit in the other. The pointer lights for a
 * moment; a click or the keyboard chooses. Both are one stop of the Tab key each, with the arrow keys inside.
 */
import type { JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Field, Layer } from '../microscope/layers.ts';
import type { Step } from '../microscope/steps.ts';
import { plural } from './format.ts';

const ROW = 16;
const FEW_ROWS = 12;
const MANY_ROWS = 96;

interface Place {
  field: Field;
  layer: Layer;
}

export function BytesAndFields({ step }: { step: Step }): JSX.Element {
  const places = useMemo(
    () => step.layers.flatMap(layer => layer.fields.map((field): Place => ({ field, layer }))),
    [step],
  );
  const first = Math.max(
    0,
    places.findIndex(({ field }) => step.difference.added.length > 0 || step.difference.changed.includes(field.offset)),
  );
  const [chosen, setChosen] = useState(first);
  const [cursor, setCursor] = useState(places[first]?.field.offset ?? 0);
  const [pointed, setPointed] = useState<number | undefined>(undefined);
  const lit = pointed ?? chosen;
  const choose = (index: number): void => {
    setChosen(index);
    setCursor(places[index].field.offset);
  };
  return (
    <div class="bytes-and-fields">
      <div class="left">
        <Stack
          step={step}
          lit={places[lit]}
          onPoint={layer =>
            setPointed(layer === undefined ? undefined : places.findIndex(place => place.layer === layer))
          }
        />
        <Hex
          step={step}
          places={places}
          lit={places[lit]?.field}
          cursor={cursor}
          onCursor={at => {
            setCursor(at);
            const index = fieldAt(places, at);
            if (index >= 0) setChosen(index);
          }}
          onPoint={at => setPointed(at === undefined ? undefined : fieldAt(places, at))}
        />
      </div>
      <Fields
        places={places}
        lit={lit}
        chosen={chosen}
        changed={step.difference.changed}
        onChoose={choose}
        onPoint={setPointed}
      />
    </div>
  );
}

function fieldAt(places: readonly Place[], at: number): number {
  return places.findIndex(({ field }) => at >= field.offset && at < field.offset + field.length);
}

/** The layers in a row, as wide as they are long (the long ones shortened). */
function Stack({
  step,
  lit,
  onPoint,
}: {
  step: Step;
  lit: Place | undefined;
  onPoint: (layer: Layer | undefined) => void;
}): JSX.Element {
  const isNew = (layer: Layer): boolean =>
    step.difference.added.some(({ kind, title }) => kind === layer.kind && title === layer.title);
  return (
    <div class="stack" aria-hidden="true" onPointerLeave={() => onPoint(undefined)}>
      {step.layers.map(layer => (
        <div
          key={`${layer.kind} ${layer.offset}`}
          class={`layer ${layer.kind} ${isNew(layer) ? 'new' : ''} ${lit?.layer === layer ? 'lit' : ''}`}
          style={{ flexGrow: Math.min(60, Math.max(8, layer.length)) }}
          title={`${layer.title}, ${plural(layer.length, 'byte')}`}
          onPointerEnter={() => onPoint(layer)}
        >
          <span>{layer.title}</span>
          <b>{layer.length}</b>
        </div>
      ))}
    </div>
  );
}

interface HexProps {
  step: Step;
  places: readonly Place[];
  lit: Field | undefined;
  cursor: number;
  onCursor: (at: number) => void;
  onPoint: (at: number | undefined) => void;
}

function Hex({ step, places, lit, cursor, onCursor, onPoint }: HexProps): JSX.Element {
  const { bytes, capturedBytes, layers, difference } = step;
  const [all, setAll] = useState(false);
  const rows = Math.min(Math.ceil(bytes.length / ROW), all ? MANY_ROWS : FEW_ROWS);
  const shown = Math.min(bytes.length, rows * ROW);
  const changed = useMemo(() => new Set(difference.changed), [difference]);
  const kinds = useMemo(() => {
    const list: string[] = Array(shown).fill('data');
    for (const layer of layers)
      for (let i = layer.offset; i < Math.min(shown, layer.offset + layer.length); i++) list[i] = layer.kind;
    return list;
  }, [layers, shown]);
  const fresh = useMemo(() => {
    const list = new Set<number>();
    for (const layer of layers) {
      if (!difference.added.some(({ kind, title }) => kind === layer.kind && title === layer.title)) continue;
      for (let i = 0; i < layer.length; i++) list.add(layer.offset + i);
    }
    return list;
  }, [layers, difference]);
  const onKey = (event: KeyboardEvent): void => {
    const line = cursor - (cursor % ROW);
    const to: Readonly<Record<string, number>> = {
      ArrowRight: cursor + 1,
      ArrowLeft: cursor - 1,
      ArrowDown: cursor + ROW,
      ArrowUp: cursor - ROW,
      Home: line,
      End: line + ROW - 1,
    };
    if (to[event.key] === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key.startsWith('Arrow') && (to[event.key] < 0 || to[event.key] >= shown)) return;
    onCursor(Math.min(shown - 1, to[event.key]));
  };
  const classOf = (at: number): string => {
    const isLit = lit !== undefined && at >= lit.offset && at < lit.offset + lit.length;
    return `byte ${kinds[at]}${isLit ? ' lit' : ''}${changed.has(at) ? ' changed' : ''}${fresh.has(at) ? ' new' : ''}${at === cursor ? ' cursor' : ''}${at >= capturedBytes ? ' missing' : ''}`;
  };
  const current = places[fieldAt(places, cursor)];
  return (
    <div class="hex">
      <div
        role="grid"
        tabIndex={0}
        aria-label={`Bytes. ${current === undefined ? '' : `${current.field.name}: ${current.field.value}`}`}
        aria-activedescendant={`byte-${cursor}`}
        aria-rowcount={Math.ceil(bytes.length / ROW)}
        onKeyDown={onKey}
        onPointerLeave={() => onPoint(undefined)}
      >
        {Array.from({ length: rows }, (_, row) => (
          <div role="row" class="row" key={row}>
            <span class="offset" role="rowheader">
              {(row * ROW).toString(16).padStart(4, '0')}
            </span>
            <span class="octets" role="presentation">
              {Array.from({ length: Math.min(ROW, bytes.length - row * ROW) }, (_, i) => {
                const at = row * ROW + i;
                return (
                  <span
                    role="gridcell"
                    id={`byte-${at}`}
                    data-at={at}
                    class={classOf(at)}
                    key={at}
                    aria-selected={at === cursor}
                    onPointerEnter={() => onPoint(at)}
                    onClick={() => onCursor(at)}
                  >
                    {at < capturedBytes ? bytes[at].toString(16).padStart(2, '0') : '··'}
                  </span>
                );
              })}
            </span>
            <span class="ascii" aria-hidden="true">
              {Array.from({ length: Math.min(ROW, bytes.length - row * ROW) }, (_, i) => {
                const code = bytes[row * ROW + i];
                return row * ROW + i >= capturedBytes
                  ? ' '
                  : code >= 0x20 && code < 0x7f
                    ? String.fromCharCode(code)
                    : '·';
              }).join('')}
            </span>
          </div>
        ))}
      </div>
      <p class="soft more">
        {plural(bytes.length, 'byte')}
        {capturedBytes < bytes.length && `, ${capturedBytes} of them captured`}
        {shown < bytes.length && `, the first ${shown} shown`}
        {(shown < bytes.length || all) && rows <= MANY_ROWS && bytes.length > FEW_ROWS * ROW && (
          <button type="button" class="quiet" onClick={() => setAll(!all)}>
            {all ? 'fewer' : 'more'}
          </button>
        )}
      </p>
    </div>
  );
}

interface FieldsProps {
  places: readonly Place[];
  lit: number;
  chosen: number;
  changed: readonly number[];
  onChoose: (index: number) => void;
  onPoint: (index: number | undefined) => void;
}

function Fields({ places, lit, chosen, changed, onChoose, onPoint }: FieldsProps): JSX.Element {
  const list = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const option = list.current?.querySelector(`#field-${lit}`);
    // Only the list scrolls, never the page.
    if (option instanceof HTMLElement && list.current !== null) {
      const { offsetTop, offsetHeight } = option;
      const { scrollTop, clientHeight } = list.current;
      if (offsetTop < scrollTop + 28) list.current.scrollTop = offsetTop - 28;
      else if (offsetTop + offsetHeight > scrollTop + clientHeight)
        list.current.scrollTop = offsetTop + offsetHeight - clientHeight;
    }
  }, [lit]);
  const onKey = (event: KeyboardEvent): void => {
    const to: Readonly<Record<string, number>> = {
      ArrowDown: chosen + 1,
      ArrowUp: chosen - 1,
      Home: 0,
      End: places.length - 1,
    };
    if (to[event.key] === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    onChoose(Math.max(0, Math.min(places.length - 1, to[event.key])));
  };
  return (
    <div class="fields">
      <div
        role="listbox"
        aria-label="Fields"
        tabIndex={0}
        ref={list}
        aria-activedescendant={`field-${chosen}`}
        onKeyDown={onKey}
        onPointerLeave={() => onPoint(undefined)}
      >
        {places.map(({ field, layer }, i) => (
          <>
            {places[i - 1]?.layer !== layer && (
              <div class={`layer-title ${layer.kind}`} role="presentation" key={`title ${layer.offset}`}>
                <span>{layer.title}</span>
                <span class="soft">{plural(layer.length, 'byte')}</span>
              </div>
            )}
            <div
              role="option"
              id={`field-${i}`}
              key={`${layer.offset} ${field.name}`}
              aria-selected={i === chosen}
              class={`field ${layer.kind}${i === lit ? ' lit' : ''}${changed.some(at => at >= field.offset && at < field.offset + field.length) ? ' changed' : ''}`}
              onPointerEnter={() => onPoint(i)}
              onClick={() => onChoose(i)}
            >
              <span class="name">{field.name}</span>
              <span class="value">{field.value}</span>
            </div>
          </>
        ))}
      </div>
      <p class="meaning" aria-live="polite">
        {places[lit] === undefined ? '' : <Meaning place={places[lit]} />}
      </p>
    </div>
  );
}

function Meaning({ place: { field, layer } }: { place: Place }): JSX.Element {
  const last = field.offset + field.length - 1;
  return (
    <>
      <strong>
        {layer.title}: {field.name}
      </strong>{' '}
      <span class="soft">{field.length === 1 ? `byte ${field.offset}` : `bytes ${field.offset} to ${last}`}</span>
      <br />
      {field.meaning}
    </>
  );
}
