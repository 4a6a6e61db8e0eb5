/**
 * docker-compose.yml as the processes will see it: every setting is one that they take, each role has what it must share,
 * and nothing is published but MQTT and the API, on 127.0.0.1. It is read by its indentation, without a YAML parser: what
 * this reader does not know is refused, so that nothing slips by it.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { choosePlaces } from '../manager/adapters.ts'
import { refuseEmbedded } from '../manager/role.ts'
import { ROLES, type RoleName } from '../manager/roles.ts'
import { readSettings } from '../settings.ts'

const lines = readFileSync('docker-compose.yml', 'utf8')
  .split('\n')
  .filter(line => line.trim() !== '' && !line.trim().startsWith('#'))
const services = blocksOf(blockUnder(lines, 'services:'))
const dockerfile = readFileSync('Dockerfile', 'utf8')

let secret: string
let dir: string

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'surgetank-compose-'))
  secret = join(dir, 'secret')
  writeFileSync(secret, 'a-password\n')
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

describe('docker-compose.yml', () => {
  it('has a service for each role, and the three servers behind them', () => {
    const servers = ['balancer', 'clickhouse', 'kafka', 'redis']
    expect([...services.keys()].sort()).toEqual([...Object.keys(ROLES), ...servers].sort())
    for (const role of Object.keys(ROLES)) expect(serviceOf(role)).toContain(`command: [${role}]`)
  })

  it.each(Object.keys(ROLES) as RoleName[])(
    'gives %s only settings that it takes, and all that it must share',
    role => {
      const environment = environmentOf(role)
      const given = Object.fromEntries(
        Object.entries(environment).map(([name, value]) => [name, name.endsWith('_FILE') ? secret : value]),
      )
      const settings = readSettings(given)
      expect(() => refuseEmbedded(role, choosePlaces(settings))).not.toThrow()
      const files = Object.values(environment).filter(value => value.startsWith('/run/secrets/'))
      const secrets = listOf(serviceOf(role), 'secrets')
      expect(files.map(path => path.slice('/run/secrets/'.length)).sort()).toEqual(secrets.sort())
    },
  )

  it('publishes MQTT and the API on 127.0.0.1, and nothing else [G6]', () => {
    const published = [...services].map(([name, service]) => [name, portsOf(service)] as const)
    const those = published.filter(([, ports]) => ports.length > 0)
    expect(Object.fromEntries(those)).toEqual({ balancer: ['127.0.0.1:1883:1883'], api: ['127.0.0.1:8080:8080'] })
    expect(lines.filter(line => /network_mode|^\s+expose:/.test(line))).toEqual([])
  })

  it('keeps the servers on a network that leads nowhere, and out of the one that is published', () => {
    expect(blockUnder(blockUnder(lines, 'networks:'), 'data:')).toEqual(['    internal: true'])
    for (const server of ['kafka', 'redis', 'clickhouse'])
      expect(listOf(serviceOf(server), 'networks')).toEqual(['data'])
    expect(listOf(serviceOf('balancer'), 'networks')).toEqual(['front'])
  })

  it('pins every image, bounds every memory, and gives a drain more than its ten seconds', () => {
    for (const [name, service] of services) {
      expect(
        service.some(line => /^mem_limit: \d+[mg]$/.test(line)),
        name,
      ).toBe(true)
      const image = service.find(line => line.startsWith('image: '))
      if (image !== undefined) expect(image, name).toMatch(/:\d+\.\d[\w.-]*$/)
      else expect(service, name).toContain('<<: *process')
    }
    expect(Number(/stop_grace_period: (\d+)s/.exec(lines.join('\n'))?.[1])).toBeGreaterThanOrEqual(15)
  })

  it('builds the image once, and pulls none of that name', () => {
    expect(lines.filter(line => line.trim().startsWith('build:'))).toEqual(['    build:'])
    expect(serviceOf('broker')).toContain('context: .')
    const shared = blockUnder(lines, 'x-process: &process')
    expect(shared).toEqual(expect.arrayContaining(['  image: surgetank', '  pull_policy: never']))
  })

  it('holds no password', () => {
    const values = lines.filter(line => /PASSWORD(?!_FILE)/.test(line)).map(line => line.trim())
    expect(values).toEqual([
      '- export CLICKHOUSE_PASSWORD="$$(cat /run/secrets/clickhouse_password)" && exec /entrypoint.sh',
    ])
  })

  it('lets Kafka flush before it answers, into its volume [G1]', () => {
    const kafka = serviceOf('kafka')
    expect(kafka).toContain('KAFKA_LOG_FLUSH_INTERVAL_MESSAGES: "1"')
    const [, dir = ''] = kafka.map(line => /^KAFKA_LOG_DIRS: (.+)$/.exec(line)).find(found => found !== null) ?? []
    expect(kafka).toContain(`- kafka:${dir}`)
  })
})

describe('the image', () => {
  it('runs as nobody in particular, with production packages only, and checks its own readiness', () => {
    const final = dockerfile.slice(dockerfile.lastIndexOf('\nFROM '))
    expect(final).toContain('npm ci --omit=dev')
    expect(final).toMatch(/^USER 10001:10001$/m)
    expect(final).toContain('/readyz')
    expect(final).not.toMatch(/apt-get|gcc|python|make\b/)
  })
})

function serviceOf(name: string): string[] {
  const service = services.get(name)
  if (service === undefined) throw new Error(`There is no service ${name}.`)
  return service
}

/** The settings of a service: what its environment merges, and nothing written beside it. */
function environmentOf(name: string): Record<string, string> {
  const service = serviceOf(name)
  const merged = service[service.indexOf('environment:') + 1] ?? ''
  const [, anchors] = /^<<: \[(.+)\]$/.exec(merged) ?? []
  if (anchors === undefined) throw new Error(`The environment of ${name} is not written as a merge.`)
  const pairs = anchors.split(', ').flatMap(anchor => blockUnder(lines, `x-${anchor.slice(1)}: &${anchor.slice(1)}`))
  return Object.fromEntries(
    pairs.map(line => {
      const [, key, value] = /^ {2}(\w+): ([^'"&*{[]\S*)$/.exec(line) ?? []
      if (key === undefined || value === undefined) throw new Error(`Not a plain setting: ${line}`)
      return [key, value]
    }),
  )
}

function portsOf(service: readonly string[]): string[] {
  const from = service.indexOf('ports:')
  const inline = service.filter(line => /^ports: ./.test(line))
  if (inline.length > 0) throw new Error(`Ports must stand on lines of their own: ${inline}`)
  if (from < 0) return []
  const rest = service.slice(from + 1)
  const end = rest.findIndex(line => !line.startsWith('- '))
  return rest.slice(0, end < 0 ? undefined : end).map(line => JSON.parse(line.slice(2)) as string)
}

function listOf(service: readonly string[], key: string): string[] {
  const [, list] =
    service.map(line => new RegExp(`^${key}: \\[(.*)\\]$`).exec(line)).find(found => found !== null) ?? []
  return list === undefined ? [] : list.split(', ')
}

/** The lines below a key, which are indented further than it is. */
function blockUnder(all: readonly string[], key: string): string[] {
  const at = all.findIndex(line => line.trim() === key)
  if (at < 0) throw new Error(`There is no ${key}`)
  const depth = indentOf(all[at] ?? '')
  const rest = all.slice(at + 1)
  const end = rest.findIndex(line => indentOf(line) <= depth)
  return rest.slice(0, end < 0 ? undefined : end)
}

/** Blocks by their name; their lines without indentation. */
function blocksOf(block: readonly string[]): Map<string, string[]> {
  const depth = indentOf(block[0] ?? '')
  const names = block.filter(line => indentOf(line) === depth).map(line => line.trim())
  return new Map(names.map(name => [name.slice(0, -1), blockUnder(block, name).map(line => line.trim())]))
}

function indentOf(line: string): number {
  return line.length - line.trimStart().length
}
