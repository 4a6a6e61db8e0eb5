/** Sessions on this disk: the contract, kills, expiry, many at once, and a disk that is full. */
import { execFileSync, fork } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openEnv } from '../../pump/lmdb-env.ts'
import { type LmdbSessions, type LmdbSessionsOptions, openLmdbSessions } from '../../sessions/lmdb-sessions.ts'
import { keyOf, packValue, readHeads, unpackValue } from '../../sessions/lmdb-value.ts'
import { nameOf } from '../../sessions/record.ts'
import type { SessionKey } from '../../sessions/sessions.ts'
import { type SessionStoreHarness, sessionStoreContract } from '../contracts/session-store-contract.ts'
import { canMount, killed, told } from '../pump/children.ts'
import { until } from '../waits.ts'

const CHILD = fileURLToPath(new URL('../../dist/test/sessions/sessions-child.js', import.meta.url))
const HOUR_MS = 3_600_000
const CAN_MOUNT = canMount()
const OPTIONS = { sessionsMax: 10_000, expiryMs: 168 * HOUR_MS, log: pino({ level: 'silent' }) }

sessionStoreContract('lmdb-sessions', openHarness, { runs: 40 })

async function openHarness(): Promise<SessionStoreHarness> {
  const dir = mkdtempSync(join(tmpdir(), 'surgetank-sessions-'))
  let current: LmdbSessions | null = null
  return { open, crash: () => open(), read, rewrite, client: number => `client-${number}`, destroy }

  async function open(more: { readonly sessionsMax?: number } = {}): Promise<LmdbSessions> {
    await current?.close()
    current = await openLmdbSessions({ ...OPTIONS, dir, ...more })
    return current
  }

  async function read(key: SessionKey): Promise<string | null> {
    return readText(dir, key)
  }

  async function rewrite(key: SessionKey, text: string): Promise<void> {
    current = null
    const env = openEnv({ path: dir, writable: true, mapBytes: 1 << 30 })
    await env.write(db => db.putSync(keyOf(nameOf(key) ?? ''), packValue(Date.now(), text)))
    await env.close()
  }

  async function destroy(): Promise<void> {
    await current?.close()
    rmSync(dir, { recursive: true, force: true })
  }
}

async function readText(dir: string, key: SessionKey): Promise<string | null> {
  const env = openEnv({ path: dir, writable: false, mapBytes: 1 << 30 })
  const value = await env.read(db => db.getBinary(keyOf(nameOf(key) ?? '')) ?? null)
  await env.close()
  return value === null ? null : unpackValue(value)
}

async function readSeenAt(dir: string, { client }: SessionKey): Promise<number | undefined> {
  const env = openEnv({ path: dir, writable: false, mapBytes: 1 << 30 })
  const heads = []
  for await (const some of readHeads(env)) heads.push(...some)
  await env.close()
  return heads.find(({ name }) => name === nameOf({ principal: '', client }))?.seenAt
}

function newDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'surgetank-sessions-'))
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  return join(dir, 'sessions')
}

async function openStore(dir: string, more: Partial<LmdbSessionsOptions> = {}): Promise<LmdbSessions> {
  const store = await openLmdbSessions({ ...OPTIONS, dir, ...more })
  onTestFinished(() => store.close())
  return store
}

const key = (client: string | number) => ({ principal: '', client: `c${client}` })

describe('sessions on this disk', () => {
  test('cost no write when a client that changes nothing goes and comes back soon, and one when it was long', async () => {
    const dir = newDir()
    let now = Date.now()
    const store = await openStore(dir, { clock: () => now })
    const written = async () => readSeenAt(dir, key(1))
    await (await store.open(key(1)))?.leave()
    const first = await written()
    for (let n = 0; n < 3; n++) {
      now += 10 * 60_000
      const session = await store.open(key(1))
      expect(session?.isPresent).toBe(true)
      await session?.leave()
      expect(await written()).toBe(first)
    }
    now += 15 * 60_000
    await (await store.open(key(1)))?.leave()
    expect(await written()).toBe(now)
    now += 60_000
    const session = await store.open(key(1))
    await session?.save({ ...session.record, opened: 1 })
    now += 60_000
    await session?.leave()
    expect(await written()).toBe(now)
  })

  test('expire from when the client left, and never while it is connected', async () => {
    let now = Date.UTC(2026, 0, 1)
    const store = await openStore(newDir(), { clock: () => now, expiryMs: 10 * HOUR_MS })
    const [away] = [await store.open(key('away')), await store.open(key('staying'))]
    now += 20 * HOUR_MS
    await away?.leave()
    now += 9 * HOUR_MS
    await store.sweep()
    const again = await store.open(key('away'))
    expect(again).toMatchObject({ isPresent: true })
    await again?.leave()
    now += 11 * HOUR_MS
    expect(await store.open(key('away'))).toMatchObject({ isPresent: false })
    expect(await store.open(key('staying'))).toMatchObject({ isPresent: true })
  })

  test('expire after a kill from when their client was last known to be connected, to the hour', async () => {
    const dir = newDir()
    let now = Date.UTC(2026, 0, 1)
    const clock = () => now
    const store = await openStore(dir, { clock, expiryMs: 10 * HOUR_MS })
    await store.open(key('a'))
    for (let sweeps = 0; sweeps < 3; sweeps++) {
      now += 6 * HOUR_MS
      await store.sweep()
      await until(async () => (await seenAt(dir, key('a'))) === now)
    }
    for (const [hours, isPresent] of [
      [9, true],
      [11, false],
    ] as const) {
      const copy = newDir()
      cpSync(dir, copy, { recursive: true })
      const killed = await openStore(copy, { clock: () => now + hours * HOUR_MS, expiryMs: 10 * HOUR_MS })
      expect(await killed.open(key('a'))).toMatchObject({ isPresent })
    }
  })

  test('that are expired are gone without anybody asking for them, a few at a time', async () => {
    const dir = newDir()
    let now = Date.UTC(2026, 0, 1)
    const store = await openStore(dir, { clock: () => now, expiryMs: HOUR_MS })
    const sessions = await Promise.all(Array.from({ length: 2_500 }, (_, at) => store.open(key(at))))
    await Promise.all(sessions.slice(0, 2_400).map(session => session?.leave()))
    now += 2 * HOUR_MS
    await store.sweep()
    expect(await store.count()).toBe(100)
    await store.close()
    const again = await openStore(dir, { clock: () => now })
    expect(await again.count()).toBe(100)
  })

  test('of 10,000 clients that connect at once take a few commits, not one each', async () => {
    const dir = newDir()
    const store = await openStore(dir)
    await store.open(key('first'))
    const before = await txnOf(dir)
    const sessions = await Promise.all(Array.from({ length: 9_999 }, (_, at) => store.open(key(at))))
    expect(sessions.filter(session => session === null)).toEqual([])
    expect((await txnOf(dir)) - before).toBeLessThan(40)
    expect(await store.count()).toBe(10_000)
  })

  test('are as many as a bound that was lowered allows, the latest', async () => {
    const dir = newDir()
    const first = await openStore(dir)
    for (let at = 0; at < 40; at++) await (await first.open(key(at)))?.leave()
    await first.close()
    const second = await openStore(dir, { sessionsMax: 30 })
    await second.sweep()
    expect(await second.count()).toBe(30)
    expect(await second.open(key(39))).toMatchObject({ isPresent: true })
    expect(await second.open(key(0))).toMatchObject({ isPresent: false })
  })

  test('take no more of the disk than 2 KiB each, whatever single ones hold', async () => {
    const store = await openStore(newDir(), { sessionsMax: 512 })
    const open = Array.from({ length: 1_000 }, (_, at) => ({ packet: at + 1, print: 'x'.repeat(40) }))
    for (let at = 0; at < 40; at++) {
      const session = await store.open(key(at))
      await session?.save({ ...session.record, open })
      await session?.leave()
    }
    expect(await store.count()).toBeLessThan(25)
    expect(await store.open(key(39))).toMatchObject({ isPresent: true, record: { open } })
    expect(await store.open(key(0))).toMatchObject({ isPresent: false })
  })

  test('whose bytes have changed on disk are begun anew', async () => {
    const dir = newDir()
    const first = await openStore(dir)
    await (await first.open(key('a')))?.leave()
    await first.close()
    const env = openEnv({ path: dir, writable: true, mapBytes: 1 << 30 })
    await env.write(db => db.putSync(keyOf('\0ca'), Buffer.from('no session of anybody')))
    await env.close()
    const second = await openStore(dir)
    expect(await second.open(key('a'))).toMatchObject({ isPresent: false })
    expect(await second.open(key('a'))).toMatchObject({ isPresent: true })
  })

  test('hold every save that resolved, and every client that was told so is present, through SIGKILL', async () => {
    const dir = newDir()
    const sure = new Map<string, number>()
    for (let round = 0; round < 4; round++) {
      const child = fork(CHILD, ['serve', dirname(dir)])
      let saves = 0
      child.on('message', (message: { client: string; saved: number }) => {
        sure.set(message.client, message.saved)
        saves++
      })
      await told(child, 'saved')
      await until(() => saves > 300 + 50 * round)
      await killed(child)
      const store = await openLmdbSessions({ ...OPTIONS, dir })
      for (const [client, saved] of sure) {
        const session = await store.open({ principal: '', client })
        expect(session?.isPresent).toBe(true)
        expect(session?.record.opened).toBeGreaterThanOrEqual(saved)
        expect(session?.record.filters).toEqual([{ filter: `devices/${client}/cmd/${session?.record.opened}`, qos: 1 }])
      }
      await store.close()
    }
    expect(sure.size).toBeGreaterThan(5)
  })

  test.skipIf(!CAN_MOUNT)('that a full disk does not take are refused, and those that are there stay', () => {
    const dir = dirname(newDir())
    const mount = 'mount -t tmpfs -o size=16m tmpfs "$1" && exec "$2" "$3" fillDisk "$1"'
    const args = ['-Urm', 'sh', '-c', mount, 'sh', dir, process.execPath, CHILD]
    expect(JSON.parse(execFileSync('unshare', args, { encoding: 'utf8' }))).toEqual({
      during: { code: 'sessions_unavailable', fate: 'retry', fresh: null, known: true, isGone: false, isBack: true },
      after: { b: false, a: 3, gone: false },
    })
  })

  test('have a file that grows with what is in it', async () => {
    const dir = newDir()
    const store = await openStore(dir)
    const session = await store.open(key('a'))
    for (let at = 0; at < 300; at++) await session?.save({ ...(session?.record ?? failed()), opened: at })
    expect(statSync(join(dir, 'data.mdb')).size).toBeLessThan(1 << 20)
  })
})

async function seenAt(dir: string, { client }: SessionKey): Promise<number | undefined> {
  const env = openEnv({ path: dir, writable: false, mapBytes: 1 << 30 })
  try {
    for await (const heads of readHeads(env)) {
      const head = heads.find(({ name }) => name === `\0${client}`)
      if (head !== undefined) return head.seenAt
    }
  } finally {
    await env.close()
  }
}

async function txnOf(dir: string): Promise<number> {
  const env = openEnv({ path: dir, writable: false, mapBytes: 1 << 30 })
  const txn = await env.read(db => (db.getStats() as { lastTxnId: number }).lastTxnId)
  await env.close()
  return txn ?? 0
}

function failed(): never {
  throw new Error('There is no session.')
}

if (!CAN_MOUNT) console.log('Not run here: sessions on a full disk, for want of a mount of its own (unshare -Urm).')
