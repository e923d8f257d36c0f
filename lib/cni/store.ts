/**
 * The record of one network's attachments on this node, and with it of its addresses: an address is taken exactly as
 * long as an attachment holds it, so there is no second list that could disagree.
 *
 *   DIR/<network>/lock       held (flock) by the process that has it open
 *   DIR/<network>/journal    begin, done and end of attachments; gateways of leases; see journal.ts
 *
 * An attachment is written down before anything of it is made (begin) and struck out after everything of it is gone
 * (end). What a killed process leaves is therefore always found: `unfinished` and `list` say what to look at.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { sweepTemporaryFiles } from '../lease/atomic-file.ts';
import { close, flockOpen } from '../sys/sys.ts';
import { codeOf, messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { Candidate } from './ipam/pool.ts';
import { Pool } from './ipam/pool.ts';
import type { RangeSet } from './ipam/range.ts';
import { Journal } from './journal.ts';
import { type Attachment, CNI_ERROR, CniError } from './plugin.ts';

/** What has to be known to remove an attachment when nobody but us remembers it. */
export interface AttachmentRecord extends Attachment {
  /** The namespace's file when it was made. */
  netns: string;
  /** The kernel's boot_id: attachments of another boot are gone. */
  boot: string;
  /** Name of the host's end. */
  hostLink: string;
  /** Absent: no bridge. */
  bridge?: string;
  /** Reserved here, in the order of the range sets: addresses without a prefix length. */
  ips: readonly string[];
  /** Traffic rules were asked for. */
  rules?: boolean;
  /** Another plugin manages the addresses. */
  delegated?: DelegatedIpam;
}

/** How to ask the plugin that gave an address to take it back, when no runtime does. */
export interface DelegatedIpam {
  type: string;
  /** CNI_PATH */
  path: readonly string[];
  argsText: string;
  /** The configuration that it was given. */
  config: Readonly<Record<string, unknown>>;
}

/** An address that we gave a bridge because it is the gateway of a leased subnet; see gateways.ts. */
export interface Gateway {
  bridge: string;
  /** With the subnet's prefix length. */
  cidr: string;
  /** Of another boot: the bridge is another one. */
  boot: string;
}

type JournalRecord =
  | ({ op: 'begin' } & AttachmentRecord)
  | ({ op: 'done' } & Attachment)
  | ({ op: 'end' } & Attachment)
  | ({ op: 'gateway' | 'no-gateway' } & Gateway)
  | { op: 'last'; ips: readonly string[] };

interface Entry {
  record: AttachmentRecord;
  done: boolean;
}

/** The journal is written anew when it has this many records that no longer count, and more of them than of others. */
const LEAST_WASTE = 2000;

export class AttachmentStore {
  readonly network: string;
  readonly #journal: Journal;
  readonly #lock: number;
  readonly #log: Logger;
  readonly #entries = new Map<string, Entry>();
  /** Who has an address, by the key of #entries. */
  readonly #holders = new Map<string, string>();
  readonly #pools = new Map<string, Pool>();
  readonly #gateways = new Map<string, Gateway>();
  /** By range set: the address that was reserved last. */
  #last: string[] = [];
  /** Records in the journal. */
  #written = 0;
  /** An end that could not be written: the journal claims more than is true. */
  #behind = false;

  private constructor(network: string, journal: Journal, lock: number, log: Logger) {
    this.network = network;
    this.#journal = journal;
    this.#lock = lock;
    this.#log = log;
  }

  /** @throws CniError 11 when another process has it open, 5 when the directory cannot be used */
  static open(directory: string, network: string, log: Logger): AttachmentStore {
    const folder = join(directory, network);
    let lock: number;
    try {
      mkdirSync(folder, { recursive: true, mode: 0o755 });
      lock = flockOpen(join(folder, 'lock'), true);
    } catch (error) {
      throw openError(folder, error);
    }
    try {
      sweepTemporaryFiles(folder);
      const { journal, content } = Journal.open(join(folder, 'journal'));
      const store = new AttachmentStore(network, journal, lock, log);
      if (content.damaged > 0) log.warn({ journal: journal.path, lines: content.damaged }, 'damaged lines passed over');
      for (const record of content.records) store.#replay(record);
      store.#written = content.records.length + content.damaged;
      return store;
    } catch (error) {
      close(lock);
      throw openError(folder, error);
    }
  }

  get(key: Attachment): AttachmentRecord | undefined {
    return this.#entries.get(keyOf(key))?.record;
  }

  list(): AttachmentRecord[] {
    return [...this.#entries.values()].map(entry => entry.record);
  }

  /** Begun, and neither done nor ended: in progress, or left by a killed process. */
  unfinished(): AttachmentRecord[] {
    return [...this.#entries.values()].filter(entry => !entry.done).map(entry => entry.record);
  }

  holderOf(address: string): Attachment | undefined {
    const key = this.#holders.get(address);
    return key === undefined ? undefined : this.#entries.get(key)?.record;
  }

  /** @param index of the set in its configuration: the pool goes on behind the address that was last reserved for it */
  pool(set: RangeSet, index: number): Pool {
    let pool = this.#pools.get(set.text);
    if (pool === undefined) {
      pool = new Pool(set, address => this.#holders.has(address), this.#holders.keys());
      if (this.#last[index] !== undefined) pool.startAfter(this.#last[index]);
      this.#pools.set(set.text, pool);
    }
    return pool;
  }

  /** The address of `candidate` was not taken after all. */
  giveBack({ address }: Candidate): void {
    for (const pool of this.#pools.values()) pool.giveBack(address);
  }

  /** Writes it down; its addresses are taken now. Its key and its addresses are free. @throws CniError 5 */
  begin(record: AttachmentRecord): void {
    this.#write({ op: 'begin', ...record });
    this.#insert(record);
    this.#compact();
  }

  /** @throws CniError 5 */
  done(key: Attachment): void {
    const entry = this.#entries.get(keyOf(key));
    if (entry === undefined || entry.done) return;
    this.#write({ op: 'done', containerId: key.containerId, ifname: key.ifname });
    entry.done = true;
  }

  /** Strikes it out; its addresses are free. Does not fail: a full disk must not keep pods from going. */
  end(key: Attachment): void {
    if (!this.#remove(keyOf(key))) return;
    try {
      this.#write({ op: 'end', containerId: key.containerId, ifname: key.ifname });
    } catch (error) {
      this.#behind = true;
      this.#log.warn({ journal: this.#journal.path, error: messageOf(error) }, 'an end could not be written down');
      return;
    }
    this.#compact();
  }

  gateways(): Gateway[] {
    return [...this.#gateways.values()];
  }

  /** Before the bridge gets it. @throws CniError 5 */
  noteGateway(gateway: Gateway): void {
    this.#write({ op: 'gateway', ...gateway });
    this.#gateways.set(gatewayKeyOf(gateway), gateway);
  }

  /** After it has gone. Does not fail: removing it once more does no harm. */
  forgetGateway(gateway: Gateway): void {
    if (!this.#gateways.delete(gatewayKeyOf(gateway))) return;
    try {
      this.#write({ op: 'no-gateway', ...gateway });
    } catch (error) {
      this.#behind = true;
      this.#log.warn({ journal: this.#journal.path, error: messageOf(error) }, 'a gateway stays written down');
    }
  }

  close(): void {
    this.#journal.close();
    close(this.#lock);
  }

  #write(record: JournalRecord): void {
    try {
      if (this.#behind) this.#rewrite();
      this.#journal.append(record);
    } catch (error) {
      throw new CniError(CNI_ERROR.io, `cannot write ${this.#journal.path}: ${messageOf(error)}`, { cause: error });
    }
    this.#written++;
  }

  #insert(record: AttachmentRecord): void {
    const key = keyOf(record);
    this.#entries.set(key, { record, done: false });
    record.ips.forEach((address, i) => {
      this.#holders.set(address, key);
      this.#last[i] = address;
      for (const pool of this.#pools.values()) pool.noteTaken(address);
    });
  }

  #remove(key: string): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return false;
    this.#entries.delete(key);
    for (const address of entry.record.ips) {
      if (this.#holders.get(address) !== key) continue;
      this.#holders.delete(address);
      for (const pool of this.#pools.values()) pool.noteReleased(address);
    }
    return true;
  }

  #replay(value: unknown): void {
    const record = asJournalRecord(value);
    switch (record?.op) {
      case 'begin': {
        // Whoever held one of its addresses before has ended, even if that could not be written down.
        const { op: _, ...attachment } = record;
        this.#remove(keyOf(record));
        for (const address of record.ips) {
          const holder = this.#holders.get(address);
          if (holder !== undefined) this.#remove(holder);
        }
        this.#insert(attachment);
        break;
      }
      case 'done': {
        const entry = this.#entries.get(keyOf(record));
        if (entry !== undefined) entry.done = true;
        break;
      }
      case 'end':
        this.#remove(keyOf(record));
        break;
      case 'gateway':
      case 'no-gateway': {
        const { op, ...gateway } = record;
        if (op === 'gateway') this.#gateways.set(gatewayKeyOf(gateway), gateway);
        else this.#gateways.delete(gatewayKeyOf(gateway));
        break;
      }
      case 'last':
        this.#last = [...record.ips];
        break;
      case undefined:
        this.#log.warn({ journal: this.#journal.path, record: value }, 'unknown record passed over');
    }
  }

  #compact(): void {
    const waste = this.#written - 2 * this.#entries.size;
    if (waste < LEAST_WASTE || waste < this.#entries.size) return;
    try {
      this.#rewrite();
    } catch (error) {
      // The old one is still there and still right.
      this.#log.warn({ journal: this.#journal.path, error: messageOf(error) }, 'the journal could not be written anew');
    }
  }

  #rewrite(): void {
    const records: JournalRecord[] = [];
    for (const { record, done } of this.#entries.values()) {
      records.push({ op: 'begin', ...record });
      if (done) records.push({ op: 'done', containerId: record.containerId, ifname: record.ifname });
    }
    for (const gateway of this.#gateways.values()) records.push({ op: 'gateway', ...gateway });
    records.push({ op: 'last', ips: this.#last });
    this.#journal.rewrite(records);
    this.#written = records.length;
    this.#behind = false;
  }
}

/** Neither part can hold a slash (libcni's rules for both). */
const keyOf = ({ containerId, ifname }: Attachment): string => `${containerId}/${ifname}`;

const gatewayKeyOf = ({ bridge, cidr }: Gateway): string => `${bridge} ${cidr}`;

function openError(folder: string, error: unknown): CniError {
  const code = codeOf(error);
  if (code === 'EWOULDBLOCK' || code === 'EAGAIN') {
    return new CniError(CNI_ERROR.tryLater, `another process manages ${folder}: try again when it has ended`);
  }
  return new CniError(CNI_ERROR.io, `cannot use ${folder}: ${messageOf(error)}`, { cause: error });
}

function asJournalRecord(value: unknown): JournalRecord | undefined {
  if (typeof value !== 'object' || value === null || !('op' in value)) return undefined;
  const record = value as Record<string, unknown>;
  const isText = (name: string): boolean => typeof record[name] === 'string';
  const hasIps = Array.isArray(record['ips']) && record['ips'].every(ip => typeof ip === 'string');
  const hasKey = isText('containerId') && isText('ifname');
  switch (record['op']) {
    case 'begin':
      return hasKey && hasIps && isText('netns') && isText('boot') && isText('hostLink')
        ? (value as JournalRecord)
        : undefined;
    case 'done':
    case 'end':
      return hasKey ? (value as JournalRecord) : undefined;
    case 'gateway':
    case 'no-gateway':
      return isText('bridge') && isText('cidr') && isText('boot') ? (value as JournalRecord) : undefined;
    case 'last':
      return hasIps ? (value as JournalRecord) : undefined;
    default:
      return undefined;
  }
}
