// Basic authentication for some paths: a Proxy-Wasm plugin.
//
// Its configuration has a line for each of them, a prefix of paths and who may see them: `/productpage user:password`.
// Several lines with one prefix are several users. Paths under no prefix are open to all.

export * from "@solo-io/proxy-runtime/proxy"; // what the host calls
import {
  Context,
  FilterHeadersStatusValues,
  GrpcStatusValues,
  HeaderPair,
  LogLevelValues,
  RootContext,
  log,
  registerRootContext,
  send_local_response,
  stream_context,
} from "@solo-io/proxy-runtime";

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

class Rule {
  constructor(public prefix: string, public credentials: string) {}
}

class BasicAuthRoot extends RootContext {
  rules: Rule[] = [];

  // A wrong configuration is refused, and with it the plugin: nothing is open by mistake.
  onConfigure(size: u32): bool {
    if (size == 0) {
      log(LogLevelValues.error, "basic_auth needs a configuration: lines of '/prefix user:password'");
      return false;
    }
    if (!super.onConfigure(size)) return false;
    this.rules = [];
    let lines = this.getConfiguration().split("\n");
    for (let i = 0; i < lines.length; i++) {
      let line = lines[i].trim();
      if (line.length == 0) continue;
      let space = line.indexOf(" ");
      if (space < 1 || line.charAt(0) != "/" || line.indexOf(":", space) < 0) {
        log(LogLevelValues.error, "basic_auth: line " + (i + 1).toString() + " is not '/prefix user:password'");
        return false;
      }
      this.rules.push(new Rule(line.substring(0, space), base64(line.substring(space + 1))));
    }
    return true;
  }

  createContext(id: u32): Context {
    return new BasicAuth(id, this);
  }
}

class BasicAuth extends Context {
  constructor(id: u32, private root: BasicAuthRoot) {
    super(id, root);
  }

  onRequestHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    let path = stream_context.headers.request.get(":path");
    let given = credentials(stream_context.headers.request.get("authorization"));
    let asked = false;
    let rules = this.root.rules;
    for (let i = 0; i < rules.length; i++) {
      if (!path.startsWith(rules[i].prefix)) continue;
      if (same(given, rules[i].credentials)) return FilterHeadersStatusValues.Continue;
      asked = true;
    }
    if (!asked) return FilterHeadersStatusValues.Continue;
    let challenge = new HeaderPair(
      String.UTF8.encode("www-authenticate"),
      String.UTF8.encode('Basic realm="basic_auth", charset="UTF-8"'),
    );
    let body = String.UTF8.encode("Who are you?\n");
    send_local_response(401, "basic_auth", body, [challenge], GrpcStatusValues.Unauthenticated);
    return FilterHeadersStatusValues.StopIteration;
  }
}

// What stands behind `Basic`; empty for any other scheme.
function credentials(authorization: string): string {
  let space = authorization.indexOf(" ");
  if (space < 0 || authorization.substring(0, space).toLowerCase() != "basic") return "";
  return authorization.substring(space + 1).trim();
}

// Whether two texts are the same, in a time that does not tell where they differ.
function same(one: string, other: string): bool {
  let difference = one.length ^ other.length;
  for (let i = 0; i < one.length && i < other.length; i++) difference |= one.charCodeAt(i) ^ other.charCodeAt(i);
  return difference == 0;
}

// RFC 4648, section 4.
function base64(text: string): string {
  let bytes = Uint8Array.wrap(String.UTF8.encode(text));
  let result = "";
  for (let i = 0; i < bytes.length; i += 3) {
    let left = bytes.length - i;
    let three = (<u32>bytes[i]) << 16;
    if (left > 1) three |= (<u32>bytes[i + 1]) << 8;
    if (left > 2) three |= <u32>bytes[i + 2];
    result += ALPHABET.charAt(three >> 18) + ALPHABET.charAt((three >> 12) & 63);
    result += left > 1 ? ALPHABET.charAt((three >> 6) & 63) : "=";
    result += left > 2 ? ALPHABET.charAt(three & 63) : "=";
  }
  return result;
}

registerRootContext((id: u32) => new BasicAuthRoot(id), "basic_auth");
