/**
 * Devices with ids of any script and sign, through the whole system and back by every way that names a device: alone in one
 * process, and over Redis and Kafka.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt, { type MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isClientId } from '../../model/ids.ts'
import { freePorts, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { startMachines } from '../machines/fleet-of-processes.ts'
import { byBytes, ODD_DEVICE_IDS } from '../model/odd-ids.ts'
import { kafkaHere } from '../servers/kafka-server.ts'
import { redisHere } from '../servers/redis-server.ts'
import { until } from '../waits.ts'
import { sql } from './observed.ts'

interface Whole {
  readonly system: SystemOptions
  /** Ends every broker with SIGKILL and starts it again. */
  restart(): Promise<void>
  close(): Promise<void>
}

const TS = Date.UTC(2026, 10, 20, 12)
const IDS = ODD_DEVICE_IDS
const NOT_TAKEN = ['a+b', 'a#', 'press\u202e17', 'a\u200bb', '\ue000', '\u2028']

journey('in one process', startAlone, true)
journey('over Redis and Kafka', startApart, kafkaHere && redisHere)

function journey(name: string, start: () => Promise<Whole>, canRun: boolean): void {
  describe.skipIf(!canRun)(`devices with odd ids ${name}`, () => {
    let whole: Whole
    let ports: SystemOptions['ports']
    const clients: MqttClient[] = []

    beforeAll(async () => {
      whole = await start()
      ports = whole.system.ports
      const gateway = await connect('gate\u202eway/1')
      for (const id of IDS) {
        await gateway.publishAsync(`devices/${id}/telemetry`, payloadOf(id), { qos: 1 })
        await gateway.publishAsync(`devices/${id}/telemetry/a,b`, '1', { qos: 1 })
        await gateway.publishAsync(`devices/${id}/telemetry`, '{', { qos: 1 })
      }
      for (const id of NOT_TAKEN) {
        // A client library refuses wildcards before they are sent.
        if (!/[+#]/.test(id)) await gateway.publishAsync(`devices/${id}/telemetry`, '{"v":1}', { qos: 1 })
      }
      await gateway.endAsync()
      await until(async () => (await getJson('/v1/devices?online=true')).items?.length === 0, 'the gateway has gone')
      // Each speaks for itself from here on, where its id may be that of a client, too.
      const other = await connect('other/1')
      for (const id of IDS) {
        const client = isClientId(id) ? await connect(id) : other
        await client.publishAsync(`devices/${id}/telemetry`, payloadOf(id), { qos: 1 })
      }
      await until(async () => Number((await rows('SELECT count() FROM telemetry.readings'))[0]?.[0]) === 3 * IDS.length)
    })

    afterAll(async () => {
      for (const client of clients) client.end(true)
      await whole?.close()
    })

    it('are stored once and as they were sent, and found by SQL, by a literal and by a parameter [G2] [G3]', async () => {
      const stored = await rows("SELECT device, value_str FROM telemetry.readings WHERE metric = 't'")
      expect(stored.toSorted(byDevice)).toEqual(IDS.map(id => [id, textOf(id)]).toSorted(byDevice))
      for (const id of IDS) {
        const literal = `'${id.replace(/['\\]/g, '\\$&')}'`
        expect(await rows(`SELECT value_str FROM telemetry.latest WHERE device = ${literal} AND metric = 't'`)).toEqual(
          [[textOf(id)]],
        )
        expect(await rowsOf(id)).toEqual([[textOf(id)]])
      }
    })

    it('are shown by their path, online while they are connected', async () => {
      for (const id of IDS) {
        const state = await getJson(`/v1/devices/${encodeURIComponent(id)}`)
        expect(state, id).toMatchObject({
          device: id,
          online: true,
          metrics: { t: { value: textOf(id) }, 'a,b': { value: 1 } },
        })
      }
    })

    it('are listed page by page in the order of their bytes', async () => {
      for (const [query, ids] of [
        ['limit=7', IDS],
        ['limit=7&online=true', IDS],
        ['limit=7&online=false', []],
      ] as const) {
        const seen: string[] = []
        let next: string | null = ''
        while (next !== null) {
          const page = await getJson(`/v1/devices?${query}${next === '' ? '' : `&cursor=${next}`}`)
          seen.push(...page.items.map(({ device }: { device: string }) => device))
          next = page.next
        }
        expect(seen).toEqual(ids.toSorted(byBytes))
      }
    })

    it('are streamed, each named by a parameter of its own', async () => {
      for (let from = 0; from < IDS.length; from += 10) {
        const named = IDS.slice(from, from + 10)
        expect(await streamed(named)).toEqual(new Set(named))
      }
    })

    it('have a history, of a metric whose name holds a comma too', async () => {
      const range = `from=${TS - 1}&to=${TS + 1}`
      for (const id of IDS) {
        const path = `/v1/devices/${encodeURIComponent(id)}/history`
        const raw = await getJson(`${path}?${range}&limit=1`)
        expect(raw, id).toMatchObject({ device: id, items: [{ metric: 't', value: textOf(id) }] })
        const rest = await getJson(`${path}?limit=1&cursor=${raw.next}`)
        expect(rest.items, id).toMatchObject([{ metric: 'v', value: IDS.indexOf(id) }])
        const buckets = await getJson(`${path}?${range}&every=1m&agg=max`)
        expect(buckets.series, id).toMatchObject([{ metric: 'v', points: [[TS, IDS.indexOf(id)]] }])
        const comma = encodeURIComponent('a,b')
        const named = await getJson(`${path}?metrics=${comma}&metrics=${comma}`)
        expect(named.items, id).toMatchObject([{ metric: 'a,b', value: 1 }])
      }
    })

    it('are told apart in the quarantine and in the list of repetitions', async () => {
      const entries = await lines(['quarantine', 'ls', '--limit', '1000', '--json'])
      const invalid = entries.filter(({ reason }) => reason === 'invalid_json').map(({ device }) => device)
      expect(invalid.toSorted(byBytes)).toEqual(IDS.toSorted(byBytes))
      const refused = entries.filter(({ reason }) => reason === 'invalid_device').map(({ where }) => where)
      const sent = NOT_TAKEN.filter(id => !/[+#]/.test(id)).map(id => `devices/${id}/telemetry`)
      expect(refused.toSorted(byBytes)).toEqual(sent.toSorted(byBytes))
      for (const id of IDS.filter((_, at) => at % 6 === 0)) {
        const repeated = await lines(['repeated', 'ls', `--device=${id}`, '--json'])
        expect(
          repeated.map(({ device }) => device),
          id,
        ).toEqual([id])
      }
    })

    it('are rebuilt and recognised after every broker was killed, and the books balance [G2] [G4]', async () => {
      for (const client of clients.splice(0)) client.end(true)
      await whole.restart()
      const again = await connect('again')
      for (const id of IDS) await again.publishAsync(`devices/${id}/telemetry`, payloadOf(id), { qos: 1 })
      await until(async () => isWhole((await getJson('/v1/devices?limit=1000')).items), 'the state is rebuilt')
      for (const id of IDS) {
        const state = await getJson(`/v1/devices/${encodeURIComponent(id)}`)
        expect(state, id).toMatchObject({ device: id, metrics: { t: { value: textOf(id) } } })
      }
      expect(await runCommand(['verify'], whole.system)).toMatchObject({ code: 0 })
      expect(await rows("SELECT count() FROM telemetry.readings WHERE metric = 't'")).toEqual([[IDS.length]])
    })

    it('can be those of a replay', async () => {
      const dir = mkdtempSync(join(tmpdir(), 'surgetank-names-'))
      const names = ["re'play, 1", 'Gerät "2"', '{3} \\ %41', '東京 & 4?']
      const files = names.map(name => join(dir, `${name}.csv`))
      for (const file of files) writeFileSync(file, 'timestamp,value\n2026-11-01 00:00:00,1.5\n2026-11-01 00:05:00,2\n')
      const to = ['--url', `mqtt://127.0.0.1:${ports.mqtt}`, '--http', `http://127.0.0.1:${ports.http}`]
      const words = [
        'simulate',
        ...to,
        '--sql',
        `http://127.0.0.1:${ports.sql}`,
        '--verify',
        '--json',
        '--replay',
        ...files,
      ]
      const { code, stdout, stderr } = await runCommand(words, whole.system)
      rmSync(dir, { recursive: true, force: true })
      expect(code, stdout + stderr).toBe(0)
      expect(JSON.parse(stdout)).toMatchObject({ acked: 2 * names.length })
    })

    async function connect(clientId: string): Promise<MqttClient> {
      const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${ports.mqtt}`, { clientId, reconnectPeriod: 0 })
      clients.push(client)
      return client
    }

    function rows(statement: string): Promise<unknown[][]> {
      return sql(ports, statement).catch(() => [])
    }

    /** A value of a parameter is read as TSV has it, where a backslash stands for itself by two. */
    async function rowsOf(id: string): Promise<unknown[][]> {
      const query = 'SELECT value_str FROM telemetry.latest WHERE device = {id:String} AND metric = {m:String}'
      const asked = new URLSearchParams({ param_id: id.replaceAll('\\', '\\\\'), param_m: 't' })
      const body = `${query} FORMAT JSONCompactEachRow`
      const response = await fetch(`http://127.0.0.1:${ports.sql}/?${asked}`, { method: 'POST', body })
      const text = await response.text()
      return response.ok ? [JSON.parse(text)] : [[text]]
    }

    // biome-ignore lint/suspicious/noExplicitAny: the answers of the API, whose shapes the tests state.
    async function getJson(path: string): Promise<any> {
      return (await fetch(`http://127.0.0.1:${ports.http}${path}`)).json()
    }

    async function streamed(ids: readonly string[]): Promise<Set<string>> {
      const query = ids.map(id => `devices=${encodeURIComponent(id)}`).join('&')
      const ended = new AbortController()
      const { body } = await fetch(`http://127.0.0.1:${ports.http}/v1/stream?${query}`, { signal: ended.signal })
      const seen = new Set<string>()
      let text = ''
      for await (const bytes of body ?? []) {
        text += Buffer.from(bytes).toString()
        for (const [, data = ''] of text.matchAll(/^data: (.*)\n\n/gm)) seen.add(JSON.parse(data).device)
        if (seen.size >= ids.length) break
      }
      ended.abort()
      return seen
    }

    async function lines(words: readonly string[]): Promise<Record<'device' | 'reason' | 'where', string>[]> {
      const { stdout } = await runCommand(words, whole.system)
      const texts = stdout.split('\n').filter(line => line !== '')
      return texts.map(line => JSON.parse(line))
    }
  })
}

function payloadOf(id: string): string {
  return JSON.stringify({ ts: TS, values: { v: IDS.indexOf(id), t: textOf(id) } })
}

/** A text of 256 bytes at most. */
function textOf(id: string): string {
  return Array.from(id).slice(0, 64).join('')
}

function byDevice(a: readonly unknown[], b: readonly unknown[]): number {
  return byBytes(String(a[0]), String(b[0]))
}

/** There are no states while there is no answer. */
function isWhole(states: readonly { readonly rehydrating: boolean }[] | undefined): boolean {
  return states?.length === IDS.length && states.every(({ rehydrating }) => !rehydrating)
}

async function startAlone(): Promise<Whole> {
  const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-odd-'))
  const system = { dataDir, ports: await freePorts() }
  let running = await startSystem(system)
  return { system, restart, close }

  async function restart(): Promise<void> {
    await running.killTree()
    running = await startSystem(system)
  }

  async function close(): Promise<void> {
    await running.stop()
    rmSync(dataDir, { recursive: true, force: true })
  }
}

async function startApart(): Promise<Whole> {
  const machines = await startMachines()
  const system = { dataDir: 'no-such-directory', ports: machines.ports, env: machines.env }
  const restart = async () => {
    for (const part of ['broker-a', 'broker-b', 'redis'] as const) await machines.killAndRestart(part)
  }
  return { system, restart, close: () => machines.close() }
}
