/** The writer's process, as the manager starts it, on a log and an engine of a test. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { DatabaseAccess } from '../../database/database.ts'
import type { WriterConfig } from '../../manager/child-messages.ts'

const WRITER_PROCESS = fileURLToPath(new URL('../../dist/manager/writer-process.js', import.meta.url))
const BOUNDS = { keepHours: 24, bytesMax: 256 << 20, quarantineBytesMax: 16 << 20 }

export type Pace = Pick<WriterConfig, 'batchRows' | 'batchMs' | 'logLevel'>

/** Resolves when it has its configuration. `database`: the engine, or what stands before it. */
export async function startWriterProcess(dir: string, database: DatabaseAccess, pace: Pace): Promise<ChildProcess> {
  const child = fork(WRITER_PROCESS, [], { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  await once(child, 'message')
  const log = { kind: 'directory' as const, dir, ...BOUNDS }
  child.send({ log, database, migrates: false, ...pace } satisfies WriterConfig)
  return child
}
