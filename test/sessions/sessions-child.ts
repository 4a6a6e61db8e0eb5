/**
 * Clients that connect, save and leave in the folder that is given, for ever; tells of each save that resolved. Or, as `fillDisk`
 * on a small disk: what becomes of them while it is full, on stdout.
 */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import { openLmdbSessions } from '../../sessions/lmdb-sessions.ts'

const CLIENTS = 20

const [role, dir = ''] = process.argv.slice(2)
const log = pino({ level: 'silent' })
const store = await openLmdbSessions({ dir: join(dir, 'sessions'), sessionsMax: 1_000, expiryMs: 3_600_000, log })
if (role === 'fillDisk') await fillDisk()
else await Promise.all(Array.from({ length: CLIENTS }, (_, number) => serve(`client-${number}`)))

async function serve(client: string): Promise<void> {
  for (;;) {
    const session = await store.open({ principal: '', client })
    if (session === null) continue
    for (let saves = 0; saves < 1 + (session.record.opened % 7); saves++) {
      const opened = session.record.opened + 1
      const record = {
        ...session.record,
        opened,
        filters: [{ filter: `devices/${client}/cmd/${opened}`, qos: 1 as const }],
      }
      await session.save(record)
      process.send?.({ client, saved: opened })
    }
    if (session.record.opened % 3 !== 0) await session.leave()
  }
}

async function fillDisk(): Promise<void> {
  const key = (client: string) => ({ principal: '', client })
  const [first, away] = [await store.open(key('a')), await store.open(key('away'))]
  const back = await store.open(key('back'))
  if (first === null || away === null || back === null) throw new Error('There is room yet.')
  await first.save({ ...first.record, opened: 1 })
  await away.leave()
  const filler = join(dir, 'filler')
  fillUp(filler)
  const refused = await first
    .save({ ...first.record, opened: 2 })
    .catch((error: { code: string; fate: string }) => error)
  const { code, fate } = refused as { code: string; fate: string }
  first.saveSoon({ ...first.record, opened: 3 })
  const [fresh, known] = [await store.open(key('b')), await store.open(key('away'))]
  const isGone = await store.discard(key('away'))
  back.saveSoon({ ...back.record, opened: 4 })
  await back.leave()
  const isBack = (await store.open(key('back')))?.isPresent
  const during = { code, fate, fresh, known: known?.isPresent, isGone, isBack }
  rmSync(filler)
  const later = await store.open(key('b'))
  await first.leave()
  const after = { b: later?.isPresent, a: (await store.open(key('a')))?.record.opened }
  const gone = (await store.open(key('away')))?.isPresent
  await store.close()
  process.stdout.write(JSON.stringify({ during, after: { ...after, gone } }))
}

function fillUp(path: string): void {
  const fd = openSync(path, 'w')
  for (let bytes = 1 << 20; bytes >= 1; bytes = Math.floor(bytes / 2)) {
    try {
      for (;;) writeSync(fd, Buffer.alloc(bytes))
    } catch {
      // No room for a piece of this size.
    }
  }
  closeSync(fd)
}
