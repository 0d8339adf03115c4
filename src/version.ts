// The version of this software, from package.json.
import packageJson from '../package.json' with { type: 'json' };

export const { version } = packageJson;
