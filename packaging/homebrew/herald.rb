# A formula for Homebrew. packaging/README.md says how a release fills in its address and digest.
class Herald < Formula
  desc "Language models on ordinary CPUs, computed by plugins behind a stable C ABI"
  homepage "@HOMEPAGE@"
  url "@URL@"
  sha256 "@SHA256@"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "build", "--release", "--locked"
    # Homebrew's bind has a program host.
    system "packaging/install.sh", "--prefix", prefix, "--no-alias"
  end

  service do
    run [opt_bin/"herald", "serve"]
    keep_alive successful_exit: false
    log_path var/"log/herald.log"
    error_log_path var/"log/herald.log"
  end

  test do
    ENV["XDG_CACHE_HOME"] = testpath/"cache"
    system bin/"herald", "self-check"
    (testpath/"version.c").write <<~C
      #include <herald.h>
      #include <stdio.h>
      int main(void) { return puts(HERALD_VERSION) < 0; }
    C
    system ENV.cc, "version.c", "-I#{include}", "-o", "version"
    assert_equal version.to_s, shell_output("./version").strip
  end
end
