/** The frame: title, tabs, notices, and the one file that may be dropped anywhere. */
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { openCaptures } from './file.ts';
import { LeasesView } from './leases.tsx';
import { reconnect } from './live.ts';
import { NetworkPanel } from './network.tsx';
import { PacketView } from './packet.tsx';
import { change, type State, say, showExample, useStore, type View } from './store.ts';
import { ThroughputView } from './throughput.tsx';

const TABS: readonly { view: View; title: string }[] = [
  { view: 'packet', title: 'One packet' },
  { view: 'network', title: 'Network' },
  { view: 'leases', title: 'Leases' },
  { view: 'throughput', title: 'Throughput' },
];

export function App(): JSX.Element {
  const state = useStore();
  const [help, setHelp] = useState(false);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      const tab = TABS[Number(event.key) - 1];
      if (tab !== undefined) change({ view: tab.view });
      else if (event.key === '?') setHelp(open => !open);
      else if (event.key === 'Escape') setHelp(false);
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, []);
  return (
    <DropTarget>
      <Header state={state} toggleHelp={() => setHelp(open => !open)} />
      {help && <Help close={() => setHelp(false)} />}
      <div class="notice-place" role="status" aria-live="polite">
        {state.notice !== undefined && (
          <p class={state.notice.bad ? 'notice bad' : 'notice'}>
            <span>{state.notice.text}</span>
            {state.connection === 'replaced' && (
              <button
                type="button"
                onClick={() => {
                  say('');
                  reconnect();
                }}
              >
                Connect again
              </button>
            )}
            <button type="button" class="quiet" aria-label="Close this notice" onClick={() => say('')}>
              ×
            </button>
          </p>
        )}
      </div>
      <main>
        <div class="panel" id={`panel-${state.view}`} role="tabpanel" aria-labelledby={`tab-${state.view}`}>
          {state.view === 'packet' && <PacketView state={state} />}
          {state.view === 'network' && <NetworkPanel state={state} />}
          {state.view === 'leases' && <LeasesView state={state} />}
          {state.view === 'throughput' && <ThroughputView state={state} />}
        </div>
      </main>
    </DropTarget>
  );
}

function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.matches('input:not([type=range]), select, textarea') || target.isContentEditable)
  );
}

function Header({ state, toggleHelp }: { state: State; toggleHelp: () => void }): JSX.Element {
  const file = useRef<HTMLInputElement>(null);
  const onTabKey = (event: KeyboardEvent): void => {
    const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
    if (step === 0) return;
    event.stopPropagation();
    const index = TABS.findIndex(({ view }) => view === state.view);
    const next = TABS[(index + step + TABS.length) % TABS.length];
    change({ view: next.view });
    document.getElementById(`tab-${next.view}`)?.focus();
  };
  return (
    <header>
      <h1>
        <Mark />
        <span>
          tulle <span class="soft">microscope</span>
        </span>
      </h1>
      <div role="tablist" aria-label="Views" onKeyDown={onTabKey}>
        {TABS.map(({ view, title }, i) => (
          <button
            type="button"
            role="tab"
            id={`tab-${view}`}
            key={view}
            aria-selected={view === state.view}
            aria-controls={view === state.view ? `panel-${view}` : undefined}
            tabIndex={view === state.view ? 0 : -1}
            title={`key ${i + 1}`}
            onClick={() => change({ view })}
          >
            {title}
          </button>
        ))}
      </div>
      <div class="source">
        <Connection state={state} />
        <button type="button" onClick={() => file.current?.click()} title="pcapng, from tulle capture">
          Open a capture
        </button>
        <input
          ref={file}
          type="file"
          hidden
          multiple
          accept=".pcapng,.ntar,application/octet-stream"
          aria-label="A pcapng file"
          onChange={event => {
            const chosen = [...(event.currentTarget.files ?? [])];
            if (chosen.length > 0) void openCaptures(chosen);
          }}
        />
        <ThemeButton />
        <button type="button" class="quiet" aria-label="Keys and help" title="Keys and help (?)" onClick={toggleHelp}>
          ?
        </button>
      </div>
    </header>
  );
}

function Mark(): JSX.Element {
  return (
    <svg viewBox="0 0 28 28" width="26" height="26" aria-hidden="true">
      <rect x="1" y="1" width="26" height="26" rx="6" class="mark-1" />
      <rect x="6" y="6" width="16" height="16" rx="4" class="mark-2" />
      <rect x="11" y="11" width="6" height="6" rx="1.5" class="mark-3" />
    </svg>
  );
}

function Connection({ state }: { state: State }): JSX.Element {
  const { hello, connection } = state;
  const words = {
    none: hello.kind === 'file' ? 'file' : 'example',
    connecting: 'connecting',
    live: 'live',
    lost: 'lost, trying again',
    replaced: 'stopped',
    refused: 'refused',
  };
  return (
    <span class={`connection ${connection}`}>
      <span class="dot" aria-hidden="true" />
      <span class="title">{hello.title}</span>
      <span class="soft">{words[connection]}</span>
      {hello.kind === 'file' && (
        <button
          type="button"
          class="quiet"
          onClick={() => (location.protocol === 'file:' ? showExample() : location.reload())}
        >
          back
        </button>
      )}
    </span>
  );
}

function ThemeButton(): JSX.Element {
  const [theme, setTheme] = useState(document.documentElement.dataset['theme'] ?? '');
  const isDark = theme === 'dark' || (theme === '' && matchMedia('(prefers-color-scheme: dark)').matches);
  return (
    <button
      type="button"
      class="quiet"
      aria-label={isDark ? 'Light colours' : 'Dark colours'}
      title={isDark ? 'Light colours' : 'Dark colours'}
      onClick={() => {
        const next = isDark ? 'light' : 'dark';
        document.documentElement.dataset['theme'] = next;
        setTheme(next);
      }}
    >
      {isDark ? '☀' : '☾'}
    </button>
  );
}

const KEYS: readonly (readonly [keys: string, what: string])[] = [
  ['1 2 3 4', 'the four views'],
  ['← →', 'one step back, one step on; in the bytes: one byte'],
  ['Home End', 'first and last step; in the bytes: begin and end of a line'],
  ['↑ ↓', 'the field before, the field after; in the bytes: a line'],
  ['Tab', 'packets, steps, bytes, fields'],
  ['?', 'this help'],
];

function Help({ close }: { close: () => void }): JSX.Element {
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    button.current?.focus();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <section class="help" role="dialog" aria-label="Keys and help">
      <h2>Keys</h2>
      <dl>
        {KEYS.map(([keys, what]) => (
          <div key={keys}>
            <dt>
              {keys.split(' ').map(key => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p class="soft">
        Drop a pcapng file of “tulle capture” anywhere on this page: it is read here, in the browser, and goes nowhere.
      </p>
      <button type="button" ref={button} onClick={close}>
        Close
      </button>
    </section>
  );
}

function DropTarget({ children }: { children: ComponentChildren }): JSX.Element {
  const [over, setOver] = useState(false);
  const depth = useRef(0);
  useEffect(() => {
    const enter = (event: DragEvent): void => {
      event.preventDefault();
      depth.current++;
      setOver(true);
    };
    const leave = (): void => {
      depth.current = Math.max(0, depth.current - 1);
      if (depth.current === 0) setOver(false);
    };
    const drop = (event: DragEvent): void => {
      event.preventDefault();
      depth.current = 0;
      setOver(false);
      const files = [...(event.dataTransfer?.files ?? [])];
      if (files.length > 0) void openCaptures(files);
    };
    const hold = (event: DragEvent): void => event.preventDefault();
    document.addEventListener('dragenter', enter);
    document.addEventListener('dragleave', leave);
    document.addEventListener('dragover', hold);
    document.addEventListener('drop', drop);
    return () => {
      document.removeEventListener('dragenter', enter);
      document.removeEventListener('dragleave', leave);
      document.removeEventListener('dragover', hold);
      document.removeEventListener('drop', drop);
    };
  }, []);
  return (
    <div class="page">
      {children}
      {over && <div class="drop-here">Drop it: a pcapng file is read here, without a server</div>}
    </div>
  );
}
