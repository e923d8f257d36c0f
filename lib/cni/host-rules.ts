/** What attaching needs of the host's traffic rules; lib/host has them, tests and machines without rules have others. */
import type { Attachment } from './plugin.ts';

export interface RuleKey extends Attachment {
  /** The CNI network's name. */
  network: string;
}

export interface RuleRequest extends RuleKey {
  /** Of the pod, without prefix lengths. */
  addresses: readonly string[];
  /** Where they go unchanged: the pod networks, CIDRs of both families. Multicast goes unchanged anyway. */
  except: readonly string[];
  /** What the configuration wants (ipMasqBackend); absent: whatever there is. */
  backend?: 'iptables' | 'nftables';
}

export interface HostRules {
  /** Masquerades what the pod sends elsewhere. Doing it again changes nothing. Throws one clear line. */
  attach(request: RuleRequest): void | Promise<void>;
  /** Removes what `attach` made for this key; removing what is missing succeeds. */
  detach(key: RuleKey): void | Promise<void>;
  /** Throws when a rule that `attach` made is missing; with the code 'no-rules' where none can be made. */
  check(request: RuleRequest): void | Promise<void>;
}
