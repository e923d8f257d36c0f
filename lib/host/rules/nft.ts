/** A table of our own in nftables, written by nft and watched over netlink. */
import type { NfTables, NftFamily } from '../../netlink/nftables.ts';
import { TulleError } from '../../util/errors.ts';
import { runTool } from './command.ts';
import type { Surface } from './surface.ts';

export interface NftTableOptions {
  nft: string;
  nfTables: NfTables;
  family: NftFamily;
  table: string;
  /** Makes the table, whatever is there. */
  script: string;
  namespace?: string;
}

export class NftTable implements Surface {
  readonly name: string;
  readonly #options: NftTableOptions;
  /** The kernel's own view of the rules, after the last `ensure`. */
  #seen = '';

  constructor(options: NftTableOptions) {
    this.#options = options;
    this.name = `nftables table ${options.family} ${options.table}`;
  }

  async ensure(): Promise<void> {
    const { nfTables, family, table, script } = this.#options;
    await this.#nft(script);
    this.#seen = nfTables.fingerprint(family, table);
    if (this.#seen === '')
      throw new TulleError('rules-tool', `nft wrote ${this.name}, and the kernel does not have it`);
  }

  async intact(): Promise<boolean> {
    const { nfTables, family, table } = this.#options;
    return this.#seen !== '' && nfTables.fingerprint(family, table) === this.#seen;
  }

  async remove(): Promise<boolean> {
    const { nfTables, family, table } = this.#options;
    this.#seen = '';
    if (!nfTables.baseChains().some(chain => chain.family === family && chain.table === table)) return false;
    // "delete" alone refuses what somebody else deleted in between; nft before 1.0.8 has no "destroy".
    await this.#nft(`add table ${family} ${table}\ndelete table ${family} ${table}\n`);
    return true;
  }

  /** As an argument: nft takes whole scripts there, and no file has to be written anywhere. */
  async #nft(script: string): Promise<void> {
    const { nft, namespace } = this.#options;
    await runTool(nft, [script], namespace === undefined ? {} : { namespace });
  }
}
