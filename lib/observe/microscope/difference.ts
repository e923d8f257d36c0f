/** What a step did to the bytes: headers that were added or removed in front, bytes that changed in the pod's packet. Pure. */
import type { Layer, LayerKind } from './layers.ts';

export interface Difference {
  /** Layers in front of the pod's packet that were not there before, with their bytes. */
  added: { title: string; kind: LayerKind; bytes: number }[];
  /** The ones that are gone. */
  removed: { title: string; kind: LayerKind; bytes: number }[];
  /** Offsets, in the new bytes, of bytes of the pod's packet that are others now. Payload of another length is not compared. */
  changed: number[];
}

/** A step's bytes: `inner` is the offset of the pod's packet in them. */
export interface Side {
  bytes: Uint8Array;
  layers: readonly Layer[];
  inner: number;
}

export const NO_DIFFERENCE: Difference = { added: [], removed: [], changed: [] };

export function differenceOf(before: Side, after: Side): Difference {
  const front = ({ layers, inner }: Side): Layer[] =>
    layers.filter(layer => layer.offset < inner && layer.kind !== 'data');
  const missingIn = (list: Layer[], other: Layer[]) =>
    list
      .filter(
        layer =>
          !other.some(({ kind, offset }) => kind === layer.kind && (kind !== 'record' || offset === layer.offset)),
      )
      .map(({ title, kind, length }) => ({ title, kind, bytes: length }));
  const [was, is] = [front(before), front(after)];
  return { added: missingIn(is, was), removed: missingIn(was, is), changed: changedBytes(before, after) };
}

function changedBytes(before: Side, after: Side): number[] {
  const headers = after.layers
    .filter(layer => layer.offset >= after.inner && (layer.kind === 'inner-ip' || layer.kind === 'inner-l4'))
    .slice(0, 2)
    .reduce((bytes, layer) => bytes + layer.length, 0);
  const sameLength = before.bytes.length - before.inner === after.bytes.length - after.inner;
  const compared = sameLength ? after.bytes.length - after.inner : headers;
  const changed: number[] = [];
  for (let i = 0; i < compared && before.inner + i < before.bytes.length; i++) {
    if (before.bytes[before.inner + i] !== after.bytes[after.inner + i]) changed.push(after.inner + i);
  }
  return changed;
}
