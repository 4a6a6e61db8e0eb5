/**
 * CPU of a connection, from accept to its end, in builds side by side: `node dist/bench/connects.js <dist of another build>`; a
 * number among the words is how many connections a round makes, another one the rounds.
 *
 * Each build runs as the whole system on a directory of its own. A round opens its connections 50 at a time, each says CONNECT,
 * waits for CONNACK and closes; counted is the CPU of the broker's process. Rounds take turns, so that a busy machine is busy for
 * both. With clean=0 this build keeps a session for each client, durably before its CONNACK; an earlier one kept nothing.
 */
import { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { readCpuOfAll } from './cpu.ts'
import { medianInterval, spreadOf } from './statistics.ts'
import { openSurgetank, type StoringVariant } from './variants.ts'
import { connectPacket, DISCONNECT } from './wire.ts'

const AT_ONCE = 50
const CLEAN_FLAG_AT = 9
/** What the end of a connection leads to (presence, its session) is counted with it. */
const AFTER_MS = 300

interface Load {
  readonly name: string
  readonly clean: boolean
  /** Client ids that are new in each round, or the same in all. */
  readonly isNew: boolean
}

const LOADS: readonly Load[] = [
  { name: 'clean=1', clean: true, isNew: false },
  { name: 'clean=0, for the first time', clean: false, isNew: true },
  { name: 'clean=0, again', clean: false, isNew: false },
]

const words = process.argv.slice(2)
const [CONNECTS = 500, ROUNDS = 11] = words.filter(word => /^\d+$/.test(word)).map(Number)
const other = words.find(word => !/^\d+$/.test(word))
if (other === undefined) throw new Error('Name the dist folder of the other build.')

const before = await openSurgetank(join(resolve(other), 'main.js'))
const after = await openSurgetank()
try {
  const figures = new Map(LOADS.map(load => [load, { before: [] as number[], after: [] as number[] }]))
  // The first round does not count: code that has just started is not compiled yet.
  for (let round = 0; round <= ROUNDS; round++) {
    for (const load of LOADS) {
      const us = new Map<StoringVariant, number>()
      for (const build of round % 2 === 0 ? [before, after] : [after, before])
        us.set(build, await measure(build, load, round))
      if (round === 0) continue
      figures.get(load)?.before.push(us.get(before) ?? Number.NaN)
      figures.get(load)?.after.push(us.get(after) ?? Number.NaN)
    }
    process.stderr.write(`round ${round} of ${ROUNDS}\n`)
  }
  process.stdout.write(`${[...figures].map(([load, taken]) => rowOf(load.name, taken)).join('\n')}\n`)
} finally {
  await Promise.all([before.close(), after.close()])
}

/** µs of the broker's process for each connection. */
async function measure({ port, parts }: StoringVariant, { clean, isNew, name }: Load, round: number): Promise<number> {
  const pids = parts().broker ?? []
  const start = total(pids)
  for (let n = 0; n < CONNECTS; n += AT_ONCE) {
    const ids = Array.from({ length: AT_ONCE }, (_, k) => `${name.length}-${isNew ? round : 0}-${n + k}`)
    await Promise.all(ids.map(id => connectOnce(port, id, clean)))
  }
  await pause(AFTER_MS)
  return (total(pids) - start) / CONNECTS
}

function connectOnce(port: number, id: string, clean: boolean): Promise<void> {
  const packet = connectPacket(id)
  packet[CLEAN_FLAG_AT] = clean ? 0x02 : 0x00
  return new Promise((done, failed) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true })
    socket.on('connect', () => socket.write(packet))
    socket.on('data', bytes => {
      if (bytes[0] !== 0x20 || bytes[3] !== 0) failed(new Error('A broker refused the client.'))
      socket.end(DISCONNECT)
    })
    socket.on('error', failed)
    socket.on('close', () => done())
  })
}

function total(pids: readonly number[]): number {
  const { userUs, sysUs } = readCpuOfAll(pids) ?? { userUs: Number.NaN, sysUs: Number.NaN }
  return userUs + sysUs
}

function rowOf(name: string, taken: { before: number[]; after: number[] }): string {
  const ratios = taken.after.map((us, at) => us / (taken.before[at] ?? Number.NaN))
  const interval = medianInterval(ratios)
  const median = (values: readonly number[]) => spreadOf(values)?.median ?? Number.NaN
  const range = interval === null ? 'too few rounds' : `${interval.from.toFixed(3)}–${interval.to.toFixed(3)}`
  const columns = [median(taken.before).toFixed(0), median(taken.after).toFixed(0), median(ratios).toFixed(3), range]
  return `| ${[name, ...columns].join(' | ')} |`
}
