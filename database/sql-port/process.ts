/**
 * The child process of the SQL port: `sql-port.ts` forks it and hears when it listens or why it does not. It never outlives its
 * parent: the end of the IPC channel is the parent's end. On SIGTERM it first lets end what runs, within a bound. SIGINT of a
 * terminal reaches the whole group and is left to the parent, which drains in order.
 */
import { constants, setPriority } from 'node:os'
import { tellParent } from '../../parent.ts'
import { keepFilesPrivate } from '../../private-files.ts'
import { openEngineClient } from './engine-client.ts'
import { openSqlServer, type SqlServer } from './server.ts'

/** The first and only message of the parent. */
export interface OpenMessage {
  readonly port: number
  readonly analystsSocket: string
}

/** The first message of the child. */
export type ChildMessage =
  | { readonly ready: true; readonly port: number }
  | { readonly ready: false; readonly why: 'port_in_use' | 'failed'; readonly detail: string }

const DRAIN_MS = 3_000

let server: SqlServer | null = null
let ending = false

keepFilesPrivate()
// As the engine: a spike of telemetry has the CPU, and queries what is left.
setPriority(constants.priority.PRIORITY_LOW)
process.on('SIGINT', () => {})
process.on('SIGTERM', () => void end())
process.once('disconnect', () => process.exit())
process.once('message', (message: OpenMessage) => void open(message))

async function open({ port, analystsSocket }: OpenMessage): Promise<void> {
  try {
    server = await openSqlServer({ engine: openEngineClient(analystsSocket), port })
    await tellParent<ChildMessage>({ ready: true, port: server.port })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    await tellParent<ChildMessage>({
      ready: false,
      why: code === 'EADDRINUSE' ? 'port_in_use' : 'failed',
      detail: message,
    })
    process.exit(1)
  }
}

async function end(): Promise<void> {
  if (ending) return
  ending = true
  await server?.close(DRAIN_MS)
  process.exit()
}
