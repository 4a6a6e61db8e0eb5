/** Whether a user may make the database that the rewriting needs, by what SHOW GRANTS says. */
import { expect, it } from 'vitest'
import { mayCreate } from '../../manager/doctor-grants.ts'

const OLD_RIGHTS =
  'GRANT SELECT, INSERT, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, ALTER TABLE, ALTER VIEW ON telemetry.* TO surgetank'

it.each([
  ['', false],
  [OLD_RIGHTS, false],
  ['GRANT CREATE DATABASE ON telemetry.* TO surgetank', false],
  ['GRANT CREATE TABLE ON *.* TO surgetank', false],
  ['GRANT CREATE DATABASE ON telemetry_internal.* TO surgetank', true],
  ['GRANT CREATE DATABASE ON `telemetry_internal`.* TO surgetank WITH GRANT OPTION', true],
  ['GRANT CREATE DATABASE ON telemetry*.* TO surgetank', true],
  ['GRANT ALL ON *.* TO surgetank', true],
  [`${OLD_RIGHTS}\nGRANT SHOW, SELECT, CREATE, DROP ON *.* TO surgetank`, true],
])('%j: the database can be made: %j', (grants, may) => {
  expect(mayCreate(grants, 'telemetry_internal')).toBe(may)
})
