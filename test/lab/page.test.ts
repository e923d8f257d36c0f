/**
 * The page of a real lab in a real Chromium: topology with rates, a ping followed from pod to pod, a fault made and mended, a
 * drop with its reason, the leases, the transports measured; and what a browser without the token cannot do.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import t from 'tap';
import { program } from '../../lib/lab/spawn.ts';
import { openBrowser, openPage } from '../support/chromium.ts';

const NAME = `pagetest${process.pid}`;
const MINUTE = 60_000;
t.setTimeout(5 * MINUTE);

interface Lab {
  url: string;
  /** `tulle lab ARGS`, as a process of its own. */
  run(...args: string[]): { status: number | null; stdout: string; stderr: string };
  end(): Promise<void>;
}

function startLab(root: string): Promise<Lab> {
  const args = ['lab', 'up', '--name', NAME, '--seconds', '1'];
  const environment = { ...process.env, TULLE_LAB_ROOT: root };
  const child: ChildProcess = spawn(process.execPath, [program('cmd/tulle.js'), ...args], { env: environment });
  const ended = new Promise<void>(resolve => child.once('exit', () => resolve()));
  const end = async (): Promise<void> => {
    child.kill('SIGINT');
    await ended;
  };
  const run: Lab['run'] = (...args) =>
    spawnSync(process.execPath, [program('cmd/tulle.js'), 'lab', ...args, '--name', NAME], {
      encoding: 'utf8',
      env: environment,
      timeout: MINUTE,
    });
  child.stdout!.resume();
  return new Promise((resolve, reject) => {
    let said = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      const url = /http:\/\/127\.0\.0\.1:\d+\/\?token=[\w-]{32}/.exec(said)?.[0];
      if (url !== undefined) resolve({ url, run, end });
    });
    child.once('exit', code => reject(new Error(`the lab ended with ${code}: ${said}`)));
  });
}

const opened = await openBrowser();
if ('reason' in opened) {
  t.plan(0, `skip: ${opened.reason}`);
  console.error(`SKIPPED: ${opened.reason}`);
} else await run(opened.browser);

async function run(browser: Browser): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'tulle-page-'));
  const lab = await startLab(root);
  const { page, complaints } = await openPage(browser);
  t.teardown(async () => {
    await browser.close();
    await lab.end();
    rmSync(root, { recursive: true, force: true });
  });
  await page.goto(lab.url);

  t.test('the topology, live', async t => {
    await page.waitForSelector('.connection.live');
    t.notOk(page.url().includes('token'), 'the token does not stay in the address');
    await page.waitForSelector('.node');
    t.equal(await page.locator('.node').count(), 2);
    t.equal(await page.locator('g.pod').count(), 2);
    t.match(await page.locator('.network').textContent(), /10\.88\.0\.0\/24.*node1.*node2/);
    await page.waitForSelector('.node-details td:has-text("ms")');
    await page.focus('.node >> nth=1');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.node-details h2:has-text("node2")');
    const deadline = performance.now() + MINUTE;
    let rates: string[] = [];
    while (!rates.some(rate => /[1-9]/.test(rate)) && performance.now() < deadline) {
      await page.waitForTimeout(100);
      rates = await page.locator('.node-group > .rate').allTextContents();
    }
    t.match(
      rates.find(rate => /[1-9]/.test(rate)),
      /b\/s/,
      'probes alone make rates',
    );
  });

  t.test('one ping, followed from pod to pod', async t => {
    await page.click('#tab-packet');
    await send(page);
    await page.waitForSelector('.packet-list li:nth-child(2)');
    t.match(await page.locator('.notice').innerText(), /pod1 → pod2: answered in [\d.]+ ms/);
    const verdicts = await page.locator('.packet-list .verdict').allInnerTexts();
    t.ok(
      verdicts.every(verdict => verdict === 'delivered'),
      `${verdicts}`,
    );
    t.equal(await page.locator('.steps li').count(), 11);
    const captured: string[] = [];
    for (let i = 0; i < 11; i++) {
      if ((await page.locator('.evidence').innerText()) === 'captured here')
        captured.push(await page.locator('.step-title h2').innerText());
      await page.keyboard.press('ArrowRight');
    }
    t.equal(captured.length, 5, `read, sent, on the way, received, written: ${captured}`);
    await page.click('.steps button[aria-label$="Who sent this?"]');
    t.equal(await page.locator('.checks .passed').count(), 9, 'the page comes to the data path’s verdict');
    await page.click('.steps button[aria-label$="Whose lease is it?"]');
    t.match(
      await page.locator('.facts').innerText(),
      /routes\[\d+\]\s+node2, which holds 10\.42\.\d+\.0\/24: 10\.88\.0\.2/,
    );
  });

  t.test('a stream: super-packets, cut and joined', async t => {
    await page.selectOption('.send select >> nth=2', 'tcp');
    await send(page);
    await page.waitForSelector('.packet-list .verdict:has-text("datagrams")');
    await page.locator('.packet-list li button:has-text("datagrams")').first().click();
    await page.waitForSelector('.which');
    await page.keyboard.press('End');
    t.match(await page.locator('.step-title h2').innerText(), /The pod receives/);
  });

  t.test('a fault: made, felt, mended', async t => {
    await page.click('#tab-network');
    await page.click('.kinds button:has-text("Partition")');
    await page.click('.faults button[type=submit]');
    await page.waitForSelector('.active-faults li:has-text("nothing passes")');
    await page.click('#tab-packet');
    await page.selectOption('.send select >> nth=2', 'icmp');
    await send(page);
    await page.waitForSelector('.notice:has-text("no answer")');
    await page.waitForSelector('.packet-list .verdict.on-its-way');
    t.pass('it left and never arrived');
    await page.click('#tab-network');
    await page.click('.active-faults button');
    await page.waitForSelector('.active-faults', { state: 'detached' });
    await page.click('#tab-packet');
    await send(page);
    await page.waitForSelector('.notice:has-text("answered")');
  });

  t.test('a drop, as it happens, with its reason', async t => {
    await page.click('#tab-network');
    await page.click('.kinds button:has-text("NAT")');
    await page.selectOption('.faults select', 'node1-node2');
    await page.click('.faults button[type=submit]');
    await page.waitForSelector('.active-faults li:has-text("packets come from")');
    await page.click('#tab-packet');
    await send(page);
    await page.click('#tab-network');
    await page.waitForSelector('.drops li:has-text("ingress-unknown-sender")');
    t.match(await page.locator('.drops li').first().innerText(), /no leaseholder's endpoint/);
    await page.click('.active-faults button');
    await page.waitForSelector('.active-faults', { state: 'detached' });
  });

  t.test('a packet for nobody: dropped where it is looked up, and its sender told', async t => {
    await page.click('#tab-packet');
    await page.selectOption('.send select >> nth=1', 'nobody');
    await send(page);
    const journey = page.locator('.packet-list li button.dropped:has-text("echo request")').first();
    await journey.click();
    await page.keyboard.press('End');
    t.match(await page.locator('.step-title h2').innerText(), /4\/4\s*Looked up, and stopped/);
    t.match(await page.locator('.drop-reason').innerText(), /egress-no-lease\s+nobody holds a lease/);
    t.match(await page.locator('.facts').innerText(), /nobody holds a lease for it/);
    await page.selectOption('.send select >> nth=1', 'pod2');
  });

  t.test('its address is to be had later, too, by its owner alone', async t => {
    t.match(lab.run('status').stdout, `The microscope, for your browser: ${lab.url}\n`);
    t.equal(statSync(join(root, NAME, 'page.url')).mode & 0o777, 0o600);
  });

  t.test('the leases and their past', async t => {
    await page.click('#tab-leases');
    await page.waitForSelector('tbody tr >> nth=1');
    await page.locator('input[type=range]').focus();
    await page.keyboard.press('Home');
    await page.waitForSelector('tbody tr', { state: 'detached' });
    t.match(await page.locator('.moment').innerText(), /The beginning/);
    await page.keyboard.press('ArrowRight');
    await page.waitForSelector('tbody tr');
    t.match(await page.locator('.moment').innerText(), /Revision 1.*leases 10\.42\./s);
  });

  t.test('the transports, side by side, on daemons that another process started again', async t => {
    t.match(lab.run('restart', '--transport', 'batch'), { status: 0 });
    await page.click('#tab-throughput');
    await page.click('.throughput-view button.primary');
    await page.waitForSelector('.throughput-view [role=status]:has-text("runs on offload again")', {
      timeout: 2 * MINUTE,
    });
    const values = (await page.locator('.bar-value').allInnerTexts()).map(Number.parseFloat);
    t.equal(values.length, 4, 'dgram, batch, offload and the plain underlay');
    t.ok(
      values.every(value => value > 0),
      `${values}`,
    );
    t.ok((await page.locator('.chart canvas').count()) > 0);
    await page.click('#tab-packet');
    await send(page);
    await page.waitForSelector('.notice:has-text("answered")');
    t.pass('and the lab is as it was');
  });

  t.test('without the token one may look, and touch nothing', async t => {
    const context = await browser.newContext();
    const stranger = await context.newPage();
    await stranger.goto(new URL('/', lab.url).href);
    await stranger.waitForSelector('.node');
    t.equal(await stranger.locator('.faults form').count(), 0);
    t.match(await stranger.locator('.faults').innerText(), /token/);
    await stranger.click('#tab-packet');
    t.equal(await stranger.locator('.send').count(), 0);
    const status = await stranger.evaluate<number>(
      "fetch('/api/act/fault', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' }).then(response => response.status)",
    );
    t.equal(status, 401);
    await context.close();
  });

  t.test('nothing went wrong', async t => {
    t.same(complaints, [], 'no error, no violation of the policy, no request to anywhere else');
  });
}

/** Presses the button, and waits for what comes of it. */
async function send(page: Page): Promise<void> {
  const answered = page.waitForResponse(response => response.url().endsWith('/api/act/send'));
  await page.click('.send button.primary');
  await answered;
}
