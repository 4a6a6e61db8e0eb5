/** A parent as `lone-parent.mjs` of an engine without walls, on any machine: the rules for analysts alone hold there. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { forkOpenly } from '../../dist/database/embedded/walls/fork.js'
import { allMissing } from '../../dist/database/embedded/walls/walls.js'
import { startSqlPort } from '../../dist/database/sql-port/sql-port.js'

const MIB = 1024 * 1024
const limits = { secondsMax: 600, memoryBytesMax: 1024 * MIB, threadsMax: 1, resultBytesMax: 128 * MIB }
const folder = process.argv[2] ?? ''
const near = join(folder, 'sockets')
mkdirSync(near, { recursive: true, mode: 0o700 })
const sockets = { own: join(near, 'own.sock'), analysts: join(near, 'analysts.sock') }
const { child, channel, walls } = await forkOpenly(folder, allMissing('a test does without'))
await channel.send({ sockets, limits, folderMsMax: 10_000 })
const message = await channel.next()
if (message?.ready !== true) throw new Error(JSON.stringify(message))
const { port } = await startSqlPort({ port: 0, analystsSocket: sockets.analysts })
process.send?.({ port, walls, pid: child.pid, own: sockets.own })
