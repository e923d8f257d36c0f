/** The way from this machine's browser to a page inside a network namespace. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { CONNECTIONS, openDoor } from '../../lib/lab/page-door.ts';

t.test('connections are handed on, both ways, and end together', async t => {
  // Not tap's folder: a socket's path has 107 bytes at most.
  const folder = mkdtempSync(join(tmpdir(), 'tulle-door-'));
  const socketPath = join(folder, 'page.sock');
  const server = createServer((asked, response) => response.end(`${asked.headers.host} ${asked.url}`));
  await new Promise<void>(resolve => server.listen(socketPath, resolve));
  const door = await openDoor(socketPath, 0, false);
  t.teardown(() => {
    door.close();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const text = await new Promise<string>((resolve, reject) => {
    request({ host: '127.0.0.1', port: door.port, path: '/x' }, response => {
      response.setEncoding('utf8').once('data', resolve);
    })
      .on('error', reject)
      .end();
  });
  t.equal(text, `127.0.0.1:${door.port} /x`);

  await t.rejects(openDoor(socketPath, door.port, false), { code: 'bad-page' });
  const other = await openDoor(socketPath, door.port, true);
  t.not(other.port, door.port, 'another one, where none was asked for');
  other.close();

  // More than it holds: the oldest makes room.
  const sockets: Socket[] = [];
  const gone = new Set<number>();
  for (let i = 0; i <= CONNECTIONS; i++) {
    const socket = connect(door.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.on('close', () => gone.add(i));
    await new Promise<void>(resolve => socket.once('connect', () => resolve()));
    sockets.push(socket);
    socket.resume();
  }
  await new Promise<void>(resolve => (gone.has(0) ? resolve() : sockets[0].once('close', () => resolve())));
  t.same([...gone], [0]);
  for (const one of sockets) one.destroy();

  server.close();
  server.closeAllConnections();
  const socket = connect(door.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.resume();
  await new Promise<void>(resolve => socket.once('close', () => resolve()));
  t.pass('nobody inside: the connection ends');
});
