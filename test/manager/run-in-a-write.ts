/** A process that is told to end twice in the middle of a transaction of the log in the directory that is given. */
import { pino } from 'pino'
import { run } from '../../manager/run.ts'
import { openEnv } from '../../pump/lmdb-env.ts'

const env = openEnv({ path: process.argv[2] ?? '', writable: true, mapBytes: 1 << 20 })
await run({
  log: pino({ level: 'silent' }),
  start: async () => ({ banner: 'ready', stop: () => new Promise(() => {}), abort: () => env.close() }),
})
void env.write(() => {
  process.emit('SIGTERM')
  process.emit('SIGTERM')
})
