/**
 * The page in a real Chromium, from file://, without a server: the example, a packet's journey forwards and backwards, bytes
 * and fields tied together, the slider, a capture dropped on it, the keyboard, colours that can be read.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { exampleRecords } from '../../lib/observe/microscope/example.ts';
import type { PacketRecord } from '../../lib/observe/microscope/model.ts';
import {
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
  enhancedPacket,
  interfaceDescription,
  LINKTYPE_RAW,
  sectionHeader,
} from '../../lib/wire/pcapng.ts';
import { openBrowser, openPage, PAGE_FILE, root } from '../support/chromium.ts';

const POOR_CONTRASTS = readFileSync(join(root, 'test/support/contrast.browser.js'), 'utf8');

const opened = await openBrowser();
if ('reason' in opened) {
  t.plan(0, `skip: ${opened.reason}`);
  console.error(`SKIPPED: ${opened.reason}`);
} else {
  const { browser } = opened;
  t.teardown(() => browser.close());
  run(browser);
}

const title = (page: Page): Promise<string> => page.locator('.step-title h2').innerText();
const count = (page: Page, selector: string): Promise<number> => page.locator(selector).count();

/** A test on a page that shows the example; by its end nothing may have gone wrong. */
function test(browser: Browser, name: string, body: (t: Test, page: Page) => Promise<void>): void {
  t.test(name, async t => {
    const { page, complaints } = await openPage(browser);
    try {
      await page.goto(PAGE_FILE);
      await page.waitForSelector('.packet-list li button');
      await body(t, page);
    } finally {
      await page.close();
    }
    t.same(complaints, [], 'no error, no violation of the policy, no request');
  });
}

/** A file as "tulle capture" of one node writes it. */
function pcapng(records: readonly PacketRecord[], node: string): number[] {
  const names = ['tulle0', 'underlay', 'tulle0 drops', 'underlay drops'];
  const blocks = [
    sectionHeader({ application: 'tulle capture' }),
    ...names.map(name => interfaceDescription({ linkType: LINKTYPE_RAW, snaplen: 0, name: `${node}:${name}` })),
    ...records
      .filter(record => record.node === node)
      .map(record =>
        enhancedPacket({
          interface: (record.place.startsWith('udp') ? 1 : 0) + (record.drop === undefined ? 0 : 2),
          time: BigInt(record.atUs) * 1000n,
          data: record.bytes,
          length: record.length,
          direction:
            record.place === 'tun-read' || record.place === 'udp-send' ? DIRECTION_OUTBOUND : DIRECTION_INBOUND,
          comments: record.drop === undefined ? [] : [`dropped: ${record.drop}: because`],
        }),
      ),
  ];
  return [...Buffer.concat(blocks)];
}

async function drop(page: Page, files: readonly { name: string; bytes: number[] }[]): Promise<void> {
  // Texts for the browser, because this program knows no DOM.
  const transfer = await page.evaluateHandle(`(() => {
    const data = new DataTransfer();
    for (const { name, bytes } of ${JSON.stringify(files)}) data.items.add(new File([new Uint8Array(bytes)], name));
    return data;
  })()`);
  await page.dispatchEvent('body', 'dragenter', { dataTransfer: transfer });
  await page.waitForSelector('.drop-here');
  await page.dispatchEvent('body', 'drop', { dataTransfer: transfer });
}

function run(browser: Browser): void {
  test(browser, 'a journey, forwards and backwards', async (t, page) => {
    t.equal(await count(page, '.packet-list li'), 5);
    t.match(await title(page), /1\/11\s*The pod sends/);
    const seen = [await title(page)];
    for (let i = 0; i < 10; i++) {
      await page.click('button[aria-label="One step on"]');
      seen.push(await title(page));
    }
    t.match(seen.at(-1), /11\/11\s*The pod receives/);
    t.equal(new Set(seen).size, 11);
    t.ok(await page.locator('button[aria-label="One step on"]').isDisabled());
    for (let i = 0; i < 10; i++) {
      await page.click('button[aria-label="One step back"]');
      t.equal(await title(page), seen[9 - i], 'the same way back');
    }
  });

  test(browser, 'what a step added, removed and changed, and the code that did it', async (t, page) => {
    const chips = async (step: string): Promise<string[]> => {
      await page.click(`.steps button[aria-label$="${step}"]`);
      await page.waitForSelector(`.step-title h2:has-text("${step}")`);
      return page.locator('.chip').allInnerTexts();
    };
    t.same(await chips('A header in front'), ['+ 12 tulle header']);
    t.same(await chips('Out as a datagram'), ['+ 20 Outer IPv4', '+ 8 Outer UDP']);
    t.same(await chips('Into the TUN'), ['− 20 Outer IPv4', '− 8 Outer UDP', '− 12 tulle header', '+ 10 vnet header']);
    t.same(await chips('Whose lease is it?'), ['− 10 vnet header', 'TTL, header checksum changed']);
    t.match(await page.locator('.facts').innerText(), /routes\[9\]\s+node2/);
    t.match(await page.locator('.code').allInnerTexts(), [/lib\/datapath\/egress\.ts/, /lib\/datapath\/peers\.ts/]);
    await chips('Who sent this?');
    t.equal(await count(page, '.checks .passed'), 9);
  });

  test(browser, 'a drop: where it ends, and why', async (t, page) => {
    await page.locator('.packet-list li button.dropped').nth(1).click();
    await page.keyboard.press('End');
    t.match(await title(page), /8\/8\s*Refused/);
    t.match(
      await page.locator('.drop-reason').innerText(),
      /ingress-spoofed-source\s+its inner source lies in the pod network/,
    );
    t.match(await page.locator('.checks .refused').innerText(), /inner source/);
    t.equal(await count(page, '.checks .not-reached'), 1);
  });

  test(browser, 'bytes and fields, tied by the pointer', async (t, page) => {
    await page.click('.steps button[aria-label$="Out as a datagram"]');
    const lit = (): Promise<number[]> =>
      page.locator('.byte.lit').evaluateAll(list => list.map(each => Number(each.getAttribute('data-at'))));
    await page.hover('.field:has-text("lease key")');
    t.same(await lit(), [32, 33, 34, 35], 'the four bytes of the lease key');
    t.match(await page.locator('.meaning').innerText(), /tulle header: lease key bytes 32 to 35/);
    await page.hover('.byte[data-at="48"]');
    t.match(await page.locator('.field.lit').innerText(), /TTL\s+62/, 'from a byte to its field');
    t.same(await lit(), [48]);
    await page.hover('h1');
    t.notSame(await lit(), [48], 'only for a moment');
    await page.click('.byte[data-at="48"]');
    await page.hover('h1');
    t.same(await lit(), [48], 'a click chooses');
  });

  test(browser, 'bytes and fields, tied by the keyboard; nothing needs a pointer', async (t, page) => {
    const focused = (): Promise<string> =>
      page.evaluate<string>('document.activeElement?.getAttribute("role") ?? document.activeElement?.tagName ?? ""');
    const until = async (role: string): Promise<void> => {
      for (let i = 0; i < 60 && (await focused()) !== role; i++) await page.keyboard.press('Tab');
      t.equal(await focused(), role, `Tab reaches the ${role}`);
    };
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    t.match(await title(page), /3\/11/);
    await page.keyboard.press('End');
    t.match(await title(page), /11\/11/);
    await page.keyboard.press('Home');
    await until('grid');
    const at = (): Promise<number> =>
      page.locator('.byte.cursor').evaluate(each => Number(each.getAttribute('data-at')));
    t.equal(await at(), 0);
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowLeft');
    t.equal(await at(), 15, 'a line down, a byte back');
    t.match(await page.locator('.field[aria-selected="true"]').innerText(), /source\s+10\.42\.7\.2/);
    t.match(
      await page.locator('[role=grid]').getAttribute('aria-label'),
      /source: 10\.42\.7\.2/,
      'a screen reader hears it',
    );
    t.match(await title(page), /1\/11/, 'the arrows moved in the bytes, not in the steps');
    await until('listbox');
    await page.keyboard.press('ArrowDown');
    t.match(await page.locator('.field[aria-selected="true"]').innerText(), /destination/);
    t.same(
      await page.locator('.byte.lit').evaluateAll(list => list.map(each => Number(each.getAttribute('data-at')))),
      [16, 17, 18, 19],
    );
    await page.keyboard.press('3');
    t.ok(await page.locator('input[type=range]').isVisible(), 'a digit changes the view');
    await page.focus('#tab-leases');
    await page.keyboard.press('?');
    t.ok(await page.locator('[role=dialog]').isVisible());
    await page.keyboard.press('Escape');
    t.equal(await count(page, '[role=dialog]'), 0);
    t.equal(await page.evaluate<string>('document.activeElement.id'), 'tab-leases', 'where the keyboard was before');
    t.same(
      await page.locator('[aria-controls]').evaluateAll(tabs => tabs.map(tab => tab.getAttribute('aria-controls'))),
      ['panel-leases'],
      'only a panel that is there is named',
    );
    await page.focus('#tab-leases');
    await page.keyboard.press('ArrowRight');
    t.equal(await page.locator('[role=tab][aria-selected=true]').innerText(), 'Throughput');
  });

  test(browser, 'the leases at any moment', async (t, page) => {
    await page.keyboard.press('3');
    const rows = (): Promise<string[]> => page.locator('tbody tr').allInnerTexts();
    t.equal((await rows()).length, 3, 'now');
    const slider = page.locator('input[type=range]');
    await slider.focus();
    await page.keyboard.press('Home');
    t.equal((await rows()).length, 0, 'in the beginning');
    t.match(await page.locator('.moment').innerText(), /The beginning/);
    for (let i = 0; i < 3; i++) await page.keyboard.press('ArrowRight');
    t.match(
      await page.locator('.moment').innerText(),
      /Revision 3, 09:14:00\s+Node node3 \(10\.88\.0\.3\) leases 10\.42\.30\.0\/24/,
    );
    t.match(await rows(), [/10\.42\.7\.0\/24/, /10\.42\.9\.0\/24/, /10\.42\.30\.0\/24\s+node3/]);
    await page.keyboard.press('ArrowRight');
    t.match(await page.locator('tr.gone').innerText(), /10\.42\.30\.0\/24/, 'it ends here');
    t.match(await slider.getAttribute('aria-valuetext'), /Revision 4.*free again/);
    await page.click('button:text("Now")');
    t.match((await rows()).at(-1), /node4/, 'the subnet changed hands');
    t.equal(await count(page, '.cell.held'), 3);
  });

  test(browser, 'captures of two nodes, dropped on the page', async (t, page) => {
    const files = ['node1', 'node2'].map(node => ({ name: `${node}.pcapng`, bytes: pcapng(exampleRecords(), node) }));
    await drop(page, files);
    await page.waitForSelector('.connection .title:text("node1.pcapng, node2.pcapng")');
    t.equal(await count(page, '.packet-list li'), 5, 'a packet that both saw is one');
    t.match(await page.locator('.packet-list li').nth(2).innerText(), /delivered · 4 datagrams/);
    await page.locator('.packet-list li button').nth(2).click();
    await page.selectOption('.which select', '3');
    await page.click('.steps button[aria-label$="Cut, and a header each"]');
    t.match(await page.locator('.field:has-text("flags")').first().innerText(), /partial checksum, last segment/);
    await page.locator('.packet-list li button.dropped').last().click();
    await page.keyboard.press('End');
    t.match(
      await page.locator('.drop-reason').innerText(),
      /ingress-spoofed-source/,
      'what the file says, though the page knows no lease',
    );
    await page.click('button:text("back")');
    await page.waitForSelector('.connection .title:text("An example")');
  });

  test(browser, 'what is no capture is said so, and what was shown stays', async (t, page) => {
    await drop(page, [{ name: 'holiday.jpg', bytes: [0xff, 0xd8, 0xff, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8] }]);
    t.match(await page.locator('.notice.bad').innerText(), /holiday\.jpg cannot be opened: .*no pcapng/);
    t.equal(await count(page, '.packet-list li'), 5);
    const [whole] = [pcapng(exampleRecords(), 'node1')];
    await drop(page, [{ name: 'cut.pcapng', bytes: whole.slice(0, whole.length - 700) }]);
    await page.waitForSelector('.connection .title:text("cut.pcapng")');
    t.ok((await count(page, '.packet-list li')) > 2, 'a file that was cut off is read as far as it goes');
  });

  test(browser, 'of a long capture the first packets are shown, and that is said', async (t, page) => {
    const [record] = exampleRecords();
    const many = Array.from({ length: 20_001 }, (_, i) => ({ ...record, bytes: record.bytes.slice(0, 40), atUs: i }));
    await drop(page, [{ name: 'long.pcapng', bytes: pcapng(many, record.node) }]);
    await page.waitForSelector('.connection .title:text("long.pcapng")');
    t.match(await page.locator('.notice.bad').innerText(), /the first 20000 of 20001 packets; for the others/);
  });

  test(browser, 'every colour can be read, light and dark', async (t, page) => {
    for (const theme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme: theme as 'light' | 'dark' });
      for (const view of ['1', '2', '3', '4']) {
        await page.keyboard.press(view);
        t.same(await page.evaluate(POOR_CONTRASTS), [], `${theme}, view ${view}`);
      }
    }
  });

  test(browser, 'it fits: no sideways scrolling at 1280, 1024 and on a phone', async (t, page) => {
    for (const [width, height] of [
      [1280, 800],
      [1920, 1080],
      [1024, 768],
      [420, 800],
    ]) {
      await page.setViewportSize({ width, height });
      for (const view of ['1', '2', '3', '4']) {
        await page.keyboard.press(view);
        const over = await page.evaluate<number>(
          'document.documentElement.scrollWidth - document.documentElement.clientWidth',
        );
        t.ok(over <= 0, `${width}×${height}, view ${view}: ${over} too wide`);
      }
    }
  });
}
