/** What a person reads once everything runs: where things are, and a line to copy. */
import type { Ports } from './data-dir.ts'

export function describeStart(ports: Ports, dataDir: string): string {
  const reading = '{"temperature": 21.5, "on": true}'
  return [
    '',
    'Surgetank is ready, on this machine only (127.0.0.1: no authentication is configured).',
    '',
    `  MQTT   mqtt://127.0.0.1:${ports.mqtt}    topic devices/{device}/telemetry`,
    `  API    http://127.0.0.1:${ports.http}    /v1/devices, /docs, /metrics`,
    `  SQL    http://127.0.0.1:${ports.sql}    ClickHouse over HTTP, read-only; database telemetry`,
    `  Data   ${dataDir}`,
    '',
    'Publish a first reading, and read it back:',
    '',
    `  npx mqtt pub -h 127.0.0.1 -p ${ports.mqtt} -q 1 -t devices/press-17/telemetry -m '${reading}'`,
    `  curl http://127.0.0.1:${ports.http}/v1/devices/press-17`,
    `  curl http://127.0.0.1:${ports.sql} -d 'SELECT * FROM telemetry.latest'`,
    '',
  ].join('\n')
}
