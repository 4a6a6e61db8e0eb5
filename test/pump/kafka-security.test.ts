/** Kafka over TLS with a user and a password: what is right works, and what is wrong is said in a sentence without secrets. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type KafkaOptions, openKafkaInlet } from '../../pump/kafka-pump.ts'
import { batchOf, rejection } from '../contracts/pump-samples.ts'
import { type KafkaServer, kafkaHere, startKafka } from '../servers/kafka-server.ts'
import { kafkaOptions } from './kafka-harness.ts'

describe.skipIf(!kafkaHere)('a Kafka that asks who comes', () => {
  const dir = mkdtempSync(join(tmpdir(), 'surgetank-tls-'))
  let kafka: KafkaServer
  let ca: string
  beforeAll(async () => {
    const [key, certificate] = [join(dir, 'key.pem'), join(dir, 'cert.pem')]
    const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost']
    const files = ['-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', certificate]
    execFileSync('openssl', [...request, ...files], { stdio: 'ignore' })
    ca = readFileSync(certificate, 'utf8')
    const onOneLine = (pem: string) => pem.trim().replaceAll('\n', '\\n')
    kafka = await startKafka({
      secured: {
        certificate: onOneLine(ca),
        key: onOneLine(readFileSync(key, 'utf8')),
        user: 'surge',
        password: 'right-password',
      },
    })
  })
  afterAll(async () => {
    await kafka.stop()
    rmSync(dir, { recursive: true, force: true })
  })
  const options = (password: string, more: Partial<KafkaOptions> = {}): KafkaOptions => ({
    ...kafkaOptions({ brokers: kafka.brokers }),
    tls: { ca },
    sasl: { mechanism: 'plain', user: 'surge', password },
    ...more,
  })

  it('takes what a known user appends over TLS [G6]', async () => {
    const inlet = await openKafkaInlet(options('right-password'))
    await inlet.append(batchOf(0, 3))
    expect(await inlet.tail(10)).toHaveLength(1)
    await inlet.close()
  })

  it('refuses a wrong password with a sentence that names the setting, and not the password [G6]', async () => {
    const error = await rejection(openKafkaInlet(options('wrong-password')))
    expect(error).toMatchObject({ code: 'log_misconfigured', fate: 'stop' })
    expect(error.message).toContain('SURGETANK_KAFKA_USER')
    expect(error.message).not.toContain('wrong-password')
  })

  it('does not trust a certificate that nobody vouches for', async () => {
    const error = await rejection(openKafkaInlet(options('right-password', { tls: { ca: null } })))
    expect(error.code).toBe('log_misconfigured')
    expect(error.message).toContain('SURGETANK_KAFKA_CA')
  })
})
