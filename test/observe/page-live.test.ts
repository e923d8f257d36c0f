/** The page in a real Chromium while its server is started again under it: it says what it may still do. */
import { createServer } from 'node:http';
import type { Browser } from 'playwright-core';
import t from 'tap';
import { exampleNetwork } from '../../lib/observe/microscope/example.ts';
import { type PageServer, type PageSource, startPageServer } from '../../lib/observe/page-server.ts';
import { openBrowser, openPage } from '../support/chromium.ts';

t.setTimeout(120_000);
const source: PageSource = {
  hello: () => ({ kind: 'lab', title: 'a lab', actions: ['send', 'fault'], faults: [], transports: [] }),
  start(publish) {
    publish({ event: 'network', data: exampleNetwork(), latest: true });
    return () => {};
  },
  act: async () => ({}),
};

const opened = await openBrowser();
if ('reason' in opened) {
  t.plan(0, `skip: ${opened.reason}`);
  console.error(`SKIPPED: ${opened.reason}`);
} else {
  t.teardown(() => opened.browser.close());
  run(opened.browser);
}

function run(browser: Browser): void {
  t.test('a server that was started again', async t => {
    let server: PageServer | undefined = await startPageServer({ port: 0, source });
    t.teardown(() => server?.close());
    const { port } = server;
    const { page } = await openPage(browser); // a connection that breaks is an error on its console
    t.teardown(() => page.close());
    await page.goto(server.url);
    await page.waitForSelector('.connection.live');
    await page.click('#tab-packet');
    await page.waitForSelector('.send');

    await server.close();
    await page.waitForSelector('.connection.lost');
    server = await startPageServer({ port, source });
    await page.waitForSelector('.connection.live');
    await page.waitForSelector('.send', { state: 'detached' });
    t.pass('its token is another one: what needs it is gone');

    await server.close();
    server = undefined;
    const stranger = createServer((_, response) => response.writeHead(401).end('who are you?'));
    t.teardown(() => stranger.close());
    await new Promise<void>(resolve => stranger.listen(port, '127.0.0.1', resolve));
    await page.waitForSelector('.connection.refused');
    t.match(await page.locator('.notice.bad').innerText(), /does not take this page any more: open the address/);
  });
}
