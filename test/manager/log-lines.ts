/** Logs as many lines as it is told, waits for a moment, and ends with 0. */
import { setTimeout as pause } from 'node:timers/promises'
import { exitWritten, openLog } from '../../manager/log.ts'

const log = openLog('info', 'test')
for (let line = 1; line <= Number(process.argv[2]); line++) log.info({ line }, 'x'.repeat(100))
log.fatal('the last one')
await pause(Number(process.argv[3]))
await exitWritten(log, 0)
