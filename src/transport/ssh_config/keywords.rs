//! The keywords that OpenSSH knows: another one is a slip of the pen, which it refuses.

use super::read::Found;

/// All of ssh_config(5) of OpenSSH 10, and those that older versions took and newer ones still skip; in lower case.
const KEYWORDS: &str = "
    addkeystoagent addressfamily batchmode bindaddress bindinterface canonicaldomains canonicalizefallbacklocal
    canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames casignaturealgorithms certificatefile
    challengeresponseauthentication channeltimeout checkhostip cipher ciphers clearallforwardings compression
    compressionlevel connectionattempts connecttimeout controlmaster controlpath controlpersist dsaauthentication
    dynamicforward enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fingerprinthash
    forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports
    globalknownhostsfile gssapiauthentication gssapidelegatecredentials gssapikeyexchange gssapiclientidentity
    gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns gssapikexalgorithms hashknownhosts host
    hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes hostkeyalgorithms hostkeyalias hostname
    identitiesonly identityagent identityfile ignoreunknown include ipqos kbdinteractiveauthentication
    kbdinteractivedevices keepalive kexalgorithms knownhostscommand localcommand localforward loglevel logverbose macs
    match nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming passwordauthentication
    permitlocalcommand permitremoteopen pkcs11provider port preferredauthentications protocol proxycommand proxyjump
    proxyusefdpass pubkeyacceptedalgorithms pubkeyacceptedkeytypes pubkeyauthentication rekeylimit remotecommand
    remoteforward requesttty requiredrsasize revokedhostkeys rhostsrsaauthentication rsaauthentication
    securitykeyprovider sendenv serveralivecountmax serveraliveinterval sessiontype setenv skeyauthentication
    smartcarddevice stdinnull streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility tag
    tcpkeepalive tisauthentication tunnel tunneldevice updatehostkeys usekeychain useprivilegedport user
    userknownhostsfile useroaming usersh verifyhostkeydns versionaddendum visualhostkey warnweakcrypto xauthlocation
    ";

/// Returns the keywords that there are not, but for those that `IgnoreUnknown` names: each with its place.
pub(super) fn slips(found: &Found) -> Vec<(String, String)> {
    let known = |keyword: &str| KEYWORDS.split_ascii_whitespace().any(|known| known == keyword);
    let ignored: Vec<&str> =
        found.first("ignoreunknown").map(|(list, _)| list.split(',').collect()).unwrap_or_default();
    let is_ignored = |keyword: &str| {
        ignored.iter().any(|p| super::matches_pattern(keyword.as_bytes(), p.to_ascii_lowercase().as_bytes()))
    };
    let slips = found.origins().filter(|(keyword, _)| !known(keyword) && !is_ignored(keyword));
    slips.map(|(keyword, origin)| (keyword.to_owned(), origin.to_string())).collect()
}
