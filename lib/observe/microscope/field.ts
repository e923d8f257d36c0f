/** A packet as people read it: layers of fields. Types and the list in which a header's fields are made. */

/** The layers by their place in an overlay's datagram; the page gives each a colour. */
export type LayerKind = 'vnet' | 'outer-ip' | 'outer-udp' | 'tulle' | 'record' | 'inner-ip' | 'inner-l4' | 'data';

export interface Field {
  name: string;
  /** As people write it: "10.42.1.2", "64", "0x1f3a". */
  value: string;
  /** A sentence: what it is for. */
  meaning: string;
  offset: number;
  length: number;
}

export interface Layer {
  kind: LayerKind;
  title: string;
  offset: number;
  length: number;
  fields: Field[];
}

/** A list in the making; `base` is the header's first byte, `at` a field's place in the header. */
export interface FieldList {
  fields: Field[];
  add(at: number, length: number, name: string, value: string, meaning: string): void;
}

export function fieldList(base: number): FieldList {
  const fields: Field[] = [];
  return {
    fields,
    add: (at, length, name, value, meaning) => void fields.push({ name, value, meaning, offset: base + at, length }),
  };
}

export const hex = (value: number, digits: number): string => `0x${value.toString(16).padStart(digits, '0')}`;
