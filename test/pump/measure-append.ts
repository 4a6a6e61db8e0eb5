/** What an append costs here: `node dist/test/pump/measure-append.js [directory]`. Prints a table; takes about 10 s. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openLmdbInlet } from '../../pump/lmdb-inlet.ts'
import { lineOf, onlyLines, RECEIVED_AT } from '../contracts/pump-samples.ts'

const MS = 3_000
const dir = await mkdtemp(join(process.argv[2] ?? tmpdir(), 'surgetank-append-'))
console.log('lines per append | lines/s | appends/s | p50 ms | p99 ms | CPU us per append | per line')
for (const count of [1, 100, 1_000]) {
  const bounds = { bytesMax: 1 << 30, keepHours: 24, quarantineBytesMax: 1 << 20, freeBytesMin: 0 }
  const inlet = await openLmdbInlet({ dir: join(dir, String(count)), ...bounds })
  const lines = Buffer.from(Array.from({ length: count }, (_, i) => lineOf(1_000_000 + i).padEnd(110)).join('\n'))
  const times = { firstReceivedAt: RECEIVED_AT, lastReceivedAt: RECEIVED_AT }
  const took: number[] = []
  const [since, before] = [performance.now(), process.cpuUsage()]
  while (performance.now() - since < MS) {
    const from = performance.now()
    await inlet.append({ lines, ...onlyLines(count), readings: count, ...times })
    took.push(performance.now() - from)
  }
  const [ms, { user, system }] = [performance.now() - since, process.cpuUsage(before)]
  took.sort((a, b) => a - b)
  const at = (part: number) => (took[Math.floor(took.length * part)] ?? 0).toFixed(2)
  const cpu = (user + system) / took.length
  const perSecond = (took.length / ms) * 1_000
  console.log(
    `${count} | ${Math.round(perSecond * count)} | ${Math.round(perSecond)} | ${at(0.5)} | ${at(0.99)} | ${cpu.toFixed(0)} | ${(cpu / count).toFixed(2)}`,
  )
  await inlet.close()
}
await rm(dir, { recursive: true, force: true })
