/**
 * Before and after all tests: which servers the suites need are here, and at the end a list of what did not run and how to get
 * it. With TEST_NOTHING_SKIPPED=1, as in CI, a server that is missing fails the run before it begins.
 */
import { existsSync } from 'node:fs'
import { anotherUserHere } from './another-user.ts'
import { clientProgramsHere } from './client-programs.ts'
import { kafkaGiven, kafkaHere } from './kafka-server.ts'
import { mosquittoHere } from './mosquitto-process.ts'
import { npmCacheHere } from './npm-cache.ts'
import { redisHere } from './redis-server.ts'
import { judgedEngineHere, wallsHere } from './walls-here.ts'

export interface Need {
  readonly name: string
  readonly isHere: boolean
  readonly suites: string
  readonly how: string
}

export const NEEDS: readonly Need[] = [
  {
    name: 'Redis',
    isHere: redisHere,
    suites: 'the space in Redis and in a Redis Cluster, sessions, several machines',
    how: 'install redis-server (Debian: apt-get install redis-server)',
  },
  {
    name: 'Kafka',
    isHere: kafkaHere,
    suites: kafkaGiven ? 'the faults of Kafka, several machines' : 'the log in Kafka and its faults, several machines',
    how: 'install Java 17 and Maven, then: mvn -q -f test/servers/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=$HOME/.cache/surgetank-test/kafka-4.1.1',
  },
  {
    name: 'clients in Java, Go and Python',
    isHere: clientProgramsHere,
    suites: 'clients that others wrote, over poor lines',
    how: 'install a JDK 17, Maven, Go 1.24 or newer and Python 3 with pip, then: bash test/clients/programs/download',
  },
  {
    name: 'mosquitto',
    isHere: mosquittoHere,
    suites: 'a bridge of mosquitto, the harness of real clients beside another broker',
    how: 'install mosquitto (Debian: apt-get install mosquitto)',
  },
  {
    name: 'superuser',
    isHere: anotherUserHere,
    suites: 'a data directory of another user',
    how: 'run the tests as root on Linux, with setpriv (Debian: util-linux)',
  },
  {
    name: 'walls of the kernel',
    isHere: wallsHere,
    suites: 'the walls around the SQL engine',
    how: 'run the tests on Linux 5.19 or newer (x64, arm64) with Landlock and seccomp, which a container may hide',
  },
  {
    name: 'engine of Linux on x64',
    isHere: judgedEngineHere,
    suites: 'the names that the SQL engine has, as they were judged',
    how: 'run the tests there',
  },
  {
    name: "packages in npm's cache",
    isHere: npmCacheHere,
    suites: 'a start of what `npm ci --ignore-scripts` installs',
    how: 'npm ci, with the cache of this user',
  },
  {
    name: 'recorded series',
    isHere: existsSync('../shared/data/nab'),
    suites: 'replay of six recorded series',
    how: 'they are not part of the repository',
  },
]

export default function setup(): () => void {
  const missing = NEEDS.filter(({ isHere }) => !isHere)
  if (missing.length > 0 && process.env.TEST_NOTHING_SKIPPED === '1') {
    throw new Error(`Nothing may be skipped, and these are missing:\n${describe(missing)}`)
  }
  return () => {
    if (missing.length > 0) process.stderr.write(`\nDID NOT RUN:\n${describe(missing)}\n`)
  }
}

export function describe(missing: readonly Need[]): string {
  return missing.map(({ name, suites, how }) => `  ${suites}: no ${name} here; ${how}`).join('\n')
}
