/** One set of rules that stands or falls together: a table of nft's, or a chain of iptables and the jump to it. */
export interface Surface {
  /** For the log: "nftables table ip tulle-10.5.0.0-16". */
  readonly name: string;
  /** Makes it, or makes it again; in one transaction, so packets see the rules before or those after. */
  ensure(): Promise<void>;
  /** Whether it stands as `ensure` left it. Cheap: this is asked every few seconds. */
  intact(): Promise<boolean>;
  /** Succeeds when there is nothing. Resolves to whether there was something. */
  remove(): Promise<boolean>;
}
