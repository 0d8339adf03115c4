// What of a secret can be masked in an output: the gateway tells who sets a secret, the runner masks by it.

/** A shorter text is no secret that could be told from others. */
export const minSecretLength = 6;

/** The lines of a value, without the blanks around them: an output is looked through line by line. */
export function linesOf(value: string): string[] {
  return value.split(/\r\n|\n|\r/).map((line) => line.trim());
}

/** Whether some line of the value is long enough to be found in an output. */
export function isMaskable(value: string): boolean {
  return linesOf(value).some((line) => line.length >= minSecretLength);
}
