/** What a person reads once everything runs: where things are, and a line to copy. */
import { describeWalls, type Walls } from '../database/embedded/walls/walls.ts'
import { isLoopback, type Settings } from '../settings.ts'
import type { Places } from './adapters.ts'
import type { Ports } from './data-dir.ts'
import type { RunningRole } from './role.ts'
import type { RoleName } from './roles.ts'

export interface Started {
  readonly ports: Ports
  readonly walls: Walls | null
}

export function describeStart({ ports, walls }: Started, settings: Settings, places: Places): string {
  const host = urlHost(settings.SURGETANK_LISTEN)
  const reading = '{"temperature": 21.5, "on": true}'
  return [
    '',
    `Surgetank is ready, ${reach(settings)}.`,
    '',
    `  MQTT   mqtt://${host}:${ports.mqtt}    topic devices/{device}/telemetry`,
    `  API    http://${host}:${ports.http}    /v1/devices, /docs, /metrics`,
    describeSql(ports, places),
    ...(walls === null ? [] : [`         SQL engine: ${describeWalls(walls)}`]),
    `  Log    ${places.log.kind === 'kafka' ? `Kafka, topic ${places.log.topic}` : places.log.dir}`,
    `  State  ${places.space.kind === 'redis' ? `Redis, keys ${places.space.prefix}*` : 'in this process'}`,
    ...(places.database.kind === 'embedded' ? [`  Data   ${places.database.dir}`] : []),
    '',
    'Publish a first reading, and read it back:',
    '',
    `  npx mqtt pub -h ${nearest(settings.SURGETANK_LISTEN)} -p ${ports.mqtt} -q 1 -t devices/press-17/telemetry -m '${reading}'`,
    `  curl http://${host}:${ports.http}/v1/devices/press-17`,
    ...(ports.sql === null ? [] : [`  curl http://127.0.0.1:${ports.sql} -d 'SELECT * FROM telemetry.latest'`]),
    '',
  ].join('\n')
}

function describeSql({ sql }: Ports, { database }: Places): string {
  return database.kind === 'server'
    ? `  SQL    ${database.access.url}    ClickHouse server; database ${database.access.database}`
    : `  SQL    http://127.0.0.1:${sql}    ClickHouse over HTTP, read-only; database telemetry`
}

export function describeRole(name: RoleName, { httpPort, mqttPort }: RunningRole, settings: Settings): string {
  const host = urlHost(settings.SURGETANK_LISTEN)
  const mqtt = mqttPort === null ? '' : `MQTT mqtt://${host}:${mqttPort}, `
  const http = name === 'api' ? 'API' : 'health and metrics'
  return `Surgetank ${name} is ready, ${reach(settings)}: ${mqtt}${http} http://${host}:${httpPort}`
}

function reach({ SURGETANK_LISTEN: address }: Settings): string {
  return isLoopback(address)
    ? 'on this machine only (no authentication is configured)'
    : `for every peer that reaches ${address} (SURGETANK_UNAUTHENTICATED=allow)`
}

/** Every address is reached by loopback, too. */
function nearest(address: string): string {
  return address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address
}

function urlHost(address: string): string {
  const host = nearest(address)
  return host.includes(':') ? `[${host}]` : host
}
