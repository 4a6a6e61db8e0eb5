/** Clients that connect, save and leave in the folder that is given, for ever; tells of each save that resolved. */
import { pino } from 'pino'
import { openLmdbSessions } from '../../sessions/lmdb-sessions.ts'

const CLIENTS = 20

const [dir = ''] = process.argv.slice(2)
const log = pino({ level: 'silent' })
const store = await openLmdbSessions({ dir, sessionsMax: 1_000, expiryMs: 3_600_000, log })
await Promise.all(Array.from({ length: CLIENTS }, (_, number) => serve(`client-${number}`)))

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
