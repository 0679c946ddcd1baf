import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.common.utils.Exit;

/** Runs a tool's main class in this JVM, with its own standard streams and with its exit caught. */
final class Tools {
    private static final InheritableThreadLocal<OutputStream> OUT = new InheritableThreadLocal<>();
    private static final InheritableThreadLocal<OutputStream> ERR = new InheritableThreadLocal<>();
    private static final InheritableThreadLocal<InputStream> IN = new InheritableThreadLocal<>();
    /** The first exit status that the tool asked for: some tools catch the exit and ask again. */
    private static final InheritableThreadLocal<AtomicReference<Integer>> STATUS = new InheritableThreadLocal<>();

    private Tools() {}

    /** What the tool wants done when its JVM ends; the console producer sends its last records there. */
    private static final InheritableThreadLocal<List<Runnable>> HOOKS = new InheritableThreadLocal<>();

    private static final class Ended extends Error {
        Ended(int status, String message) {
            super(message == null ? "exit " + status : message, null, false, false);
        }
    }

    static void captureStreams() {
        PrintStream err = System.err;
        System.setOut(new PrintStream(new Routed(OUT, err), true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new Routed(ERR, err), true, StandardCharsets.UTF_8));
        Exit.Procedure end = (status, message) -> {
            AtomicReference<Integer> first = STATUS.get();
            if (first != null) {
                first.compareAndSet(null, status);
            }
            throw new Ended(status, message);
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        Exit.setShutdownHookAdder((name, hook) -> {
            List<Runnable> hooks = HOOKS.get();
            if (hooks != null) {
                hooks.add(hook);
            }
        });
    }

    static void captureInput() {
        System.setIn(new InputStream() {
            @Override
            public int read() throws java.io.IOException {
                InputStream in = IN.get();
                return in == null ? -1 : in.read();
            }
        });
    }

    static JsonNode run(JsonNode call) throws Exception {
        List<String> arguments = new ArrayList<>();
        call.get("arguments").forEach(argument -> arguments.add(argument.asText()));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        ByteArrayOutputStream err = new ByteArrayOutputStream();
        String input = call.hasNonNull("input") ? call.get("input").asText() : "";
        int status = run(call.get("class").asText(), arguments, input, out, err);
        ObjectNode result = Peer.JSON.createObjectNode();
        result.put("status", status);
        result.put("out", out.toString(StandardCharsets.UTF_8));
        result.put("err", err.toString(StandardCharsets.UTF_8));
        return result;
    }

    /** The exit status of the tool's main with these arguments and streams. */
    static int run(String name, List<String> arguments, String input, OutputStream out, OutputStream err) throws Exception {
        OUT.set(out);
        ERR.set(err);
        IN.set(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        AtomicReference<Integer> status = new AtomicReference<>();
        STATUS.set(status);
        List<Runnable> hooks = new CopyOnWriteArrayList<>();
        HOOKS.set(hooks);
        ClassLoader loader = new Fresh();
        Thread.currentThread().setContextClassLoader(loader);
        try {
            loader.loadClass(name)
                .getMethod("main", String[].class)
                .invoke(null, (Object) arguments.toArray(new String[0]));
            return status.get() == null ? 0 : status.get();
        } catch (java.lang.reflect.InvocationTargetException failure) {
            if (failure.getCause() instanceof Ended) {
                return status.get();
            }
            failure.getCause().printStackTrace(new PrintStream(err, true));
            return 1;
        } finally {
            hooks.forEach(Runnable::run);
            System.out.flush();
            System.err.flush();
            HOOKS.remove();
            OUT.remove();
            ERR.remove();
            IN.remove();
            STATUS.remove();
            Thread.currentThread().setContextClassLoader(Tools.class.getClassLoader());
        }
    }

    /** Loads the tools' own classes anew for every call: some keep counts in static fields. */
    private static final class Fresh extends ClassLoader {
        Fresh() {
            super(Tools.class.getClassLoader());
        }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            if (!name.startsWith("org.apache.kafka.tools.")) {
                return super.loadClass(name, resolve);
            }
            synchronized (getClassLoadingLock(name)) {
                Class<?> loaded = findLoadedClass(name);
                return loaded == null ? define(name) : loaded;
            }
        }

        private Class<?> define(String name) throws ClassNotFoundException {
            try (InputStream in = getParent().getResourceAsStream(name.replace('.', '/') + ".class")) {
                if (in == null) {
                    throw new ClassNotFoundException(name);
                }
                byte[] bytes = in.readAllBytes();
                return defineClass(name, bytes, 0, bytes.length);
            } catch (java.io.IOException failure) {
                throw new ClassNotFoundException(name, failure);
            }
        }
    }

    /** Each thread family writes to the streams of the call that started it. */
    private static final class Routed extends OutputStream {
        private final InheritableThreadLocal<OutputStream> route;
        private final OutputStream fallback;

        Routed(InheritableThreadLocal<OutputStream> route, OutputStream fallback) {
            this.route = route;
            this.fallback = fallback;
        }

        private OutputStream target() {
            OutputStream target = route.get();
            return target == null ? fallback : target;
        }

        @Override
        public void write(int value) throws java.io.IOException {
            target().write(value);
        }

        @Override
        public void write(byte[] bytes, int from, int length) throws java.io.IOException {
            target().write(bytes, from, length);
        }
    }
}
